package example;

import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.microsoft.aad.msal4j.ITokenCacheAccessContext;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;
import org.springframework.boot.json.JsonParserFactory;

/** What MSAL4J leaves to the app: the nonce is compared before the login is stored, so that a foreign one leaves no trace. */
final class NonceCheck implements ITokenCacheAccessAspect {
    /** The login is another request's. */
    static final class MismatchException extends RuntimeException {
        MismatchException() {
            super("the ID token has another nonce");
        }
    }

    private final ITokenCacheAccessAspect login;
    private final String nonce;

    NonceCheck(ITokenCacheAccessAspect login, String nonce) {
        this.login = login;
        this.nonce = nonce;
    }

    @Override
    public void beforeCacheAccess(ITokenCacheAccessContext context) {
        login.beforeCacheAccess(context);
    }

    @Override
    public void afterCacheAccess(ITokenCacheAccessContext context) {
        if (context.hasCacheChanged() && parse(context.tokenCache().serialize()).get("IdToken") instanceof Map<?, ?> tokens) {
            for (Object token : tokens.values()) {
                if (!nonce.equals(claimsOf(((Map<?, ?>) token).get("secret").toString()).get("nonce"))) {
                    throw new MismatchException();
                }
            }
        }
        login.afterCacheAccess(context);
    }

    /** The token came from the provider over TLS (OpenID Connect Core 1.0 §3.1.3.7). */
    private static Map<String, Object> claimsOf(String idToken) {
        return parse(new String(Base64.getUrlDecoder().decode(idToken.split("\\.")[1]), StandardCharsets.UTF_8));
    }

    private static Map<String, Object> parse(String json) {
        return JsonParserFactory.getJsonParser().parseMap(json);
    }
}
