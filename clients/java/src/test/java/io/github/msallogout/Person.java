package io.github.msallogout;

import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.UUID;

/**
 * Who signs in; travels inside codes and refresh tokens, so that the token endpoint keeps no state.
 *
 * @param homeAccountId {@code <uid>.<utid>}, or the bare subject
 * @param issuedAt the ID token's {@code iat}; null is now
 */
record Person(String homeAccountId, String subject, String sid, Long issuedAt, String issuer) {
    static final String AUTHORITY = "https://login.example/adfs/";
    /** The provider whose logout tokens the service obeys. */
    static final String ISSUER = Fixture.variable("TEST_ISSUER");

    /** Somebody whose id is a bare subject. */
    static Person someone() {
        String subject = "Subject|" + UUID.randomUUID();
        return new Person(subject, subject, "sid-" + UUID.randomUUID(), null, ISSUER);
    }

    Person withSid(String other) {
        return new Person(homeAccountId, subject, other, issuedAt, issuer);
    }

    Person issuedAt(long seconds) {
        return new Person(homeAccountId, subject, sid, seconds, issuer);
    }

    boolean hasClientInfo() {
        return !homeAccountId.equals(subject);
    }

    SignedInSession session() {
        return new SignedInSession(issuer, sid, subject);
    }

    String encode(Map<String, Object> more) {
        Map<String, Object> members = new LinkedHashMap<>();
        members.put("homeAccountId", homeAccountId);
        members.put("subject", subject);
        members.put("sid", sid);
        members.put("issuer", issuer);
        if (issuedAt != null) {
            members.put("issuedAt", new Json.Literal(Long.toString(issuedAt)));
        }
        members.putAll(more);
        return base64(Json.write(members));
    }

    static Person decode(String encoded) {
        Map<String, Object> members =
                Json.parseObject(new String(Base64.getUrlDecoder().decode(encoded), StandardCharsets.UTF_8));
        Object issuedAt = members.get("issuedAt");
        return new Person(
                (String) members.get("homeAccountId"),
                (String) members.get("subject"),
                (String) members.get("sid"),
                issuedAt == null ? null : Long.valueOf(((Json.Literal) issuedAt).text()),
                (String) members.get("issuer"));
    }

    static String base64(String text) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(text.getBytes(StandardCharsets.UTF_8));
    }

    static String jwt(Map<String, Object> claims) {
        return base64("{\"alg\":\"none\"}") + "." + base64(Json.write(claims)) + ".sig";
    }

    static long now() {
        return System.currentTimeMillis() / 1_000;
    }
}
