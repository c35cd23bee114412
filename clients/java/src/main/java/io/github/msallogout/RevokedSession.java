package io.github.msallogout;

/**
 * A session of this app that a sign-out has ended.
 *
 * @param issuer the ID token's {@code iss}
 * @param sid the ID token's {@code sid}; null where it had none
 * @param subject the ID token's {@code sub}
 * @param homeAccountId MSAL's id of the account
 */
public record RevokedSession(String issuer, String sid, String subject, String homeAccountId) {}
