package joining.before;

import com.microsoft.aad.msal4j.*;
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
    private final IHttpClient httpClient;

    SampleApp(IHttpClient httpClient) {
        this.httpClient = httpClient;
    }

    @GetMapping("/redirect")
    String redirect(HttpServletRequest request, @RequestParam String code) throws Exception {
        ConfidentialClientApplication app = createClientApplication();
        IAuthenticationResult result = app.acquireToken(
                AuthorizationCodeParameters.builder(code, redirectUri).scopes(SCOPES).build()).get();
        request.getSession().setAttribute("token_cache", app.tokenCache().serialize());
        request.getSession().setAttribute("account", result.account());
        return "signed in";
    }

    @GetMapping("/token")
    String token(HttpServletRequest request) throws Exception {
        IAccount account = (IAccount) request.getSession().getAttribute("account");
        if (account == null) {
            throw new IllegalStateException("not signed in");
        }
        ConfidentialClientApplication app = createClientApplication();
        app.tokenCache().deserialize((String) request.getSession().getAttribute("token_cache"));
        IAuthenticationResult result = app.acquireTokenSilently(
                SilentParameters.builder(SCOPES, account).build()).get();
        request.getSession().setAttribute("token_cache", app.tokenCache().serialize());
        return result.accessToken();
    }

    /** Something went wrong, like the expiration or revocation of a token. */
    @ExceptionHandler
    ResponseEntity<String> failed(Exception failure) {
        return ResponseEntity.status(401).body("sign in again");
    }

    private ConfidentialClientApplication createClientApplication() throws Exception {
        return ConfidentialClientApplication.builder(clientId, ClientCredentialFactory.createFromSecret(secret))
                .authority(authority)
                .httpClient(httpClient)
                .build();
    }
}
