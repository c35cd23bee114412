package io.github.msallogout;

/**
 * The session or the account was signed out: the tokens are not stored, and the app ends its own session. Ends a login
 * or a refresh that lost against a sign-out. The code is {@code ERR_SIGNED_OUT}.
 *
 * <p>MSAL4J hands it over as the cause of an {@link java.util.concurrent.ExecutionException} or {@link
 * java.util.concurrent.CompletionException}; {@link SharedTokenCache#isSignInRequired} looks into those.
 */
public final class SignedOutException extends TokenCacheException {
    private static final long serialVersionUID = 1L;

    SignedOutException() {
        super("ERR_SIGNED_OUT", "the user was signed out: end the session of this app and sign in again", null);
    }
}
