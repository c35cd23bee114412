/**
 * The shared token cache of web apps for MSAL4J, in PostgreSQL: a sign-out at the identity provider deletes a user's
 * tokens from it, and no refresh or login that is under way brings them back.
 *
 * <p>{@link io.github.msallogout.SharedTokenCache} is where to begin.
 */
package io.github.msallogout;
