package example;

import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.springframework.boot.json.JsonParserFactory;

/** What MSAL4J leaves to the app: it does not compare the nonce. */
final class IdTokens {
    private IdTokens() {}

    /** The token came from the provider over TLS (OpenID Connect Core 1.0 §3.1.3.7). */
    static Object nonceOf(String idToken) {
        byte[] claims = Base64.getUrlDecoder().decode(idToken.split("\\.")[1]);
        return JsonParserFactory.getJsonParser().parseMap(new String(claims, StandardCharsets.UTF_8)).get("nonce");
    }
}
