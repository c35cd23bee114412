package io.github.msallogout;

import java.io.Serializable;
import java.util.Map;

/**
 * What an app's own session must remember of the ID token, to hear of its sign-out.
 *
 * @param issuer the ID token's {@code iss}
 * @param sid the ID token's {@code sid}; null where it has none
 * @param subject the ID token's {@code sub}; it decides where there is no {@code sid}
 * @serial exclude
 */
public record SignedInSession(String issuer, String sid, String subject) implements Serializable {
    /**
     * A session that can be asked for.
     *
     * @param issuer the ID token's {@code iss}
     * @param sid the ID token's {@code sid}; null or empty where it has none
     * @param subject the ID token's {@code sub}
     * @throws TokenCacheMisuseException where the issuer is missing, or both others are
     */
    public SignedInSession {
        sid = sid == null || sid.isEmpty() ? null : sid;
        if (issuer == null || issuer.isEmpty() || sid == null && (subject == null || subject.isEmpty())) {
            throw new TokenCacheMisuseException(
                    "a session has an \"issuer\", and a \"sid\" or a \"subject\": take \"iss\", \"sid\" and \"sub\" of the ID token");
        }
    }

    /**
     * The session of an ID token that MSAL4J has just redeemed: {@code IAuthenticationResult.idToken()}. It is not
     * verified, since it came from the issuer over TLS (OpenID Connect Core 1.0 §3.1.3.7); never pass one from elsewhere.
     *
     * @param idToken the JWT
     * @return its session
     * @throws TokenCacheMisuseException where it is no JWT, or lacks {@code iss} or {@code sub}
     */
    public static SignedInSession of(String idToken) {
        Map<String, Object> claims = SessionClaims.decode(idToken);
        SessionClaims session = claims == null ? null : SessionClaims.of(claims);
        if (session == null) {
            throw new TokenCacheMisuseException(
                    "this is no ID token: pass idToken() of MSAL's result, and ask for the scope \"openid\"");
        }
        return new SignedInSession(session.issuer(), session.sid(), session.subject());
    }

    /** Subjects are unique at their issuer alone (OpenID Connect Core 1.0 §2). */
    boolean isOfSameUser(SignedInSession other) {
        return issuer.equals(other.issuer) && subject != null && subject.equals(other.subject);
    }
}
