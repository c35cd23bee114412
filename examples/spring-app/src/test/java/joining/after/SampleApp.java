package joining.after;

import com.microsoft.aad.msal4j.*;
import io.github.msallogout.*;
import jakarta.servlet.http.HttpServletRequest;
import java.net.URI;
import java.util.Set;
import javax.sql.DataSource;
import org.springframework.beans.factory.annotation.*;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.*;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.*;

/** A web app in the structure of Microsoft's samples. */
@SpringBootApplication
@RestController
public class SampleApp {
    private static final Set<String> SCOPES = Set.of("User.Read");

    @Value("${app.client-id}") String clientId;
    @Value("${app.client-secret}") String secret;
    @Value("${app.authority}") String authority;
    @Value("${app.redirect-uri}") URI redirectUri;
    @Autowired SharedTokenCache tokenCache;
    private final IHttpClient httpClient;

    SampleApp(IHttpClient httpClient) {
        this.httpClient = httpClient;
    }

    @Bean static SharedTokenCache tokenCache(DataSource db, @Value("${app.client-id}") String id) { return SharedTokenCache.of(db, id); }
    @Bean static SignOutFilter signOutFilter(SharedTokenCache tokenCache) { return new SignOutFilter(tokenCache); }

    @GetMapping("/redirect")
    String redirect(HttpServletRequest request, @RequestParam String code) throws Exception {
        ConfidentialClientApplication app = createClientApplication(tokenCache.forLogin());
        IAuthenticationResult result = app.acquireToken(
                AuthorizationCodeParameters.builder(code, redirectUri).scopes(SCOPES).build()).get();
        SignOutFilter.remember(request, SignedInSession.of(result.idToken()));
        request.getSession().setAttribute("account", result.account());
        return "signed in";
    }

    @GetMapping("/token")
    String token(HttpServletRequest request) throws Exception {
        IAccount account = (IAccount) request.getSession().getAttribute("account");
        if (account == null) {
            throw new IllegalStateException("not signed in");
        }
        ConfidentialClientApplication app = createClientApplication(tokenCache.forAccount(account.homeAccountId()));
        IAuthenticationResult result = app.acquireTokenSilently(
                SilentParameters.builder(SCOPES, account).build()).get();
        return result.accessToken();
    }

    /** Something went wrong, like the expiration or revocation of a token. */
    @ExceptionHandler
    ResponseEntity<String> failed(Exception failure) {
        return ResponseEntity.status(401).body("sign in again");
    }

    private ConfidentialClientApplication createClientApplication(ITokenCacheAccessAspect aspect) throws Exception {
        return ConfidentialClientApplication.builder(clientId, ClientCredentialFactory.createFromSecret(secret))
                .authority(authority)
                .httpClient(httpClient)
                .setTokenCacheAccessAspect(aspect)
                .build();
    }
}
