package example;

import com.microsoft.aad.msal4j.ClientCredentialFactory;
import com.microsoft.aad.msal4j.ConfidentialClientApplication;
import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import io.github.msallogout.OpenIdProvider;
import java.net.MalformedURLException;
import java.util.Set;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.stereotype.Component;

/** Makes an MSAL application for one operation: it costs microseconds, and a shared one would mix users. */
@Component
class Clients {
    static final Set<String> SCOPES = Set.of("profile");

    private final OpenIdProvider provider;
    private final String clientId;
    private final String secret;

    Clients(
            OpenIdProvider provider,
            @Value("${app.client-id}") String clientId,
            @Value("${app.client-secret}") String secret) {
        this.provider = provider;
        this.clientId = clientId;
        this.secret = secret;
    }

    ConfidentialClientApplication create(ITokenCacheAccessAspect aspect) {
        try {
            return ConfidentialClientApplication.builder(clientId, ClientCredentialFactory.createFromSecret(secret))
                    .authority(provider.authority())
                    .httpClient(provider.httpClient())
                    .setTokenCacheAccessAspect(aspect)
                    .build();
        } catch (MalformedURLException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
