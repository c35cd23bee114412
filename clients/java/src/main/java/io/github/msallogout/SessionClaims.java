package io.github.msallogout;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import java.util.Map;

/**
 * A session, from an ID token.
 *
 * @param sid null where the token has none
 * @param issuedAt {@code iat}, whole seconds since 1970
 * @param oid the directory object, or null
 * @param tid the tenant, or null
 */
record SessionClaims(String issuer, String sid, String subject, long issuedAt, String oid, String tid) {
    private static final double MAX_SECONDS = 1L << 62; // what the database takes, and more than any time in nanoseconds

    /** The session that a token names in its claims; null where it names none. */
    static SessionClaims of(Map<String, Object> claims) {
        if (claims.get("iss") instanceof String issuer
                && claims.get("sub") instanceof String subject
                && claims.get("iat") instanceof Json.Literal iat) {
            double issuedAt = Math.floor(Double.parseDouble(iat.text()));
            return Math.abs(issuedAt) >= MAX_SECONDS
                    ? null
                    : new SessionClaims(
                            issuer,
                            textOrNull(claims.get("sid")),
                            subject,
                            (long) issuedAt,
                            textOrNull(claims.get("oid")),
                            textOrNull(claims.get("tid")));
        }
        return null;
    }

    /** The session of an ID token; null where it is not for this client, or names none. */
    static SessionClaims of(Object idToken, String clientId) {
        Map<String, Object> claims = decode(idToken);
        return claims == null || !isFor(claims.get("aud"), clientId) ? null : of(claims);
    }

    /** The claims of a JWT, unverified: only for tokens that came from the issuer over TLS. Null where it is no JWT. */
    static Map<String, Object> decode(Object jwt) {
        if (!(jwt instanceof String text)) {
            return null;
        }
        String[] parts = text.split("\\.", 3);
        if (parts.length < 2) {
            return null;
        }
        try {
            byte[] payload = Base64.getUrlDecoder().decode(parts[1]);
            return Json.parseObject(
                    StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(payload)).toString());
        } catch (IllegalArgumentException | CharacterCodingException notJwt) {
            return null;
        }
    }

    boolean isSameAs(SessionClaims other) {
        return isSameAs(other, sid);
    }

    /** Whether it is the other one, or was before its ID token lost the sid. OIDC Core 1.0 §12.2: a refresh may. */
    boolean isKnownAs(SessionClaims other) {
        return isSameAs(other) || sid == null && isSameAs(other, other.sid);
    }

    private boolean isSameAs(SessionClaims other, String itsSid) {
        return issuer.equals(other.issuer)
                && subject.equals(other.subject)
                && (itsSid == null ? other.sid == null : itsSid.equals(other.sid));
    }

    private static boolean isFor(Object audience, String clientId) {
        return audience instanceof List<?> all ? all.contains(clientId) : clientId.equals(audience);
    }

    private static String textOrNull(Object claim) {
        return claim instanceof String text && !text.isEmpty() ? text : null;
    }
}
