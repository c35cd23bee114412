package example;

import com.microsoft.aad.msal4j.AuthorizationCodeParameters;
import com.microsoft.aad.msal4j.AuthorizationRequestUrlParameters;
import com.microsoft.aad.msal4j.IAccount;
import com.microsoft.aad.msal4j.IAuthenticationResult;
import com.microsoft.aad.msal4j.Prompt;
import com.microsoft.aad.msal4j.SilentParameters;
import com.microsoft.aad.msal4j.TokenSource;
import io.github.msallogout.OpenIdProvider;
import io.github.msallogout.SharedTokenCache;
import io.github.msallogout.SignOutFilter;
import io.github.msallogout.SignedInSession;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpSession;
import java.io.Serializable;
import java.net.MalformedURLException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.security.SecureRandom;
import java.util.Base64;
import java.util.Map;
import java.util.concurrent.CompletionException;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.http.HttpStatus;
import org.springframework.http.MediaType;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.ExceptionHandler;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.client.RestClient;
import org.springframework.web.util.UriComponentsBuilder;

@RestController
class Pages {
    private static final String ACCOUNT = "account";
    private static final String PENDING = "pending";
    private static final SecureRandom RANDOM = new SecureRandom();

    private final SharedTokenCache tokenCache;
    private final OpenIdProvider provider;
    private final Clients clients;
    private final String clientId;
    private final String apiUrl;
    private final String home;

    /** What begins at /sign-in and ends at /callback. */
    private record Pending(String state, String nonce, String verifier) implements Serializable {}

    Pages(
            SharedTokenCache tokenCache,
            OpenIdProvider provider,
            Clients clients,
            @Value("${app.client-id}") String clientId,
            @Value("${app.api-url}") String apiUrl,
            @Value("${server.port}") int port) {
        this.tokenCache = tokenCache;
        this.provider = provider;
        this.clients = clients;
        this.clientId = clientId;
        this.apiUrl = apiUrl;
        this.home = "http://localhost:" + port;
    }

    @GetMapping(path = "/", produces = MediaType.TEXT_PLAIN_VALUE)
    String home(HttpServletRequest request) {
        IAccount account = accountOf(request);
        return account == null ? "not signed in\n" : "signed in as " + account.homeAccountId() + "\n";
    }

    @GetMapping("/sign-in")
    ResponseEntity<Void> signIn(HttpServletRequest request) {
        Pending pending = new Pending(random(), random(), random());
        request.getSession().setAttribute(PENDING, pending);
        return redirect(provider.authorizationUrl(
                clients.create(tokenCache.forLogin()),
                AuthorizationRequestUrlParameters.builder(home + "/callback", Clients.SCOPES)
                        .state(pending.state())
                        .nonce(pending.nonce())
                        .codeChallenge(challengeOf(pending.verifier()))
                        .codeChallengeMethod("S256")
                        .prompt(Prompt.CONSENT) // without it a provider may give no refresh token (OpenID Connect Core 1.0 §11)
                        .build()));
    }

    @GetMapping("/callback")
    ResponseEntity<?> callback(
            HttpServletRequest request,
            @RequestParam(required = false) String code,
            @RequestParam(required = false) String state) {
        HttpSession session = request.getSession(false);
        Pending pending = session == null ? null : (Pending) session.getAttribute(PENDING);
        if (pending == null || code == null || !pending.state().equals(state)) {
            return beginAgain();
        }
        session.removeAttribute(PENDING);
        IAuthenticationResult result = clients.create(new NonceCheck(tokenCache.forLogin(), pending.nonce()))
                .acquireToken(AuthorizationCodeParameters.builder(code, URI.create(home + "/callback"))
                        .scopes(Clients.SCOPES)
                        .codeVerifier(pending.verifier())
                        .build())
                .join();
        SignOutFilter.remember(request, SignedInSession.of(result.idToken()));
        request.getSession().setAttribute(ACCOUNT, result.account());
        return redirect(URI.create(home + "/"));
    }

    @GetMapping("/api")
    ResponseEntity<?> api(HttpServletRequest request, @RequestParam(defaultValue = "false") boolean refresh) {
        IAccount account = accountOf(request);
        if (account == null) {
            return notSignedIn();
        }
        IAuthenticationResult token = silent(account, refresh);
        Object answer = RestClient.create()
                .get()
                .uri(apiUrl)
                .headers(headers -> headers.setBearerAuth(token.accessToken()))
                .retrieve()
                .body(Map.class);
        boolean fromCache = token.metadata().tokenSource() == TokenSource.CACHE;
        return ResponseEntity.ok(Map.of("status", 200, "fromCache", fromCache, "answer", answer));
    }

    private IAuthenticationResult silent(IAccount account, boolean forceRefresh) {
        try {
            return clients.create(tokenCache.forAccount(account.homeAccountId()))
                    .acquireTokenSilently(SilentParameters.builder(Clients.SCOPES, account)
                            .forceRefresh(forceRefresh)
                            .build())
                    .join();
        } catch (MalformedURLException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    @GetMapping("/sign-out")
    ResponseEntity<Void> signOut() {
        return redirect(UriComponentsBuilder.fromUri(provider.endSessionEndpoint().orElseThrow())
                .queryParam("client_id", clientId)
                .queryParam("post_logout_redirect_uri", home)
                .build()
                .toUri());
    }

    /** A sign-out was faster than this request, or left no token; or the login is another request's. */
    @ExceptionHandler(CompletionException.class)
    ResponseEntity<?> failed(CompletionException failure, HttpServletRequest request) {
        if (failure.getCause() instanceof NonceCheck.MismatchException) {
            return beginAgain();
        }
        if (!SharedTokenCache.isSignInRequired(failure)) {
            throw failure;
        }
        HttpSession session = request.getSession(false);
        if (session != null) {
            session.invalidate();
        }
        return notSignedIn();
    }

    private static IAccount accountOf(HttpServletRequest request) {
        HttpSession session = request.getSession(false);
        return session == null ? null : (IAccount) session.getAttribute(ACCOUNT);
    }

    private static ResponseEntity<String> beginAgain() {
        return ResponseEntity.badRequest().body("begin again at /sign-in\n");
    }

    private static ResponseEntity<String> notSignedIn() {
        return ResponseEntity.status(HttpStatus.UNAUTHORIZED)
                .contentType(MediaType.TEXT_PLAIN)
                .body("not signed in\n");
    }

    private static ResponseEntity<Void> redirect(URI location) {
        return ResponseEntity.status(HttpStatus.FOUND).location(location).build();
    }

    private static String random() {
        byte[] bytes = new byte[32];
        RANDOM.nextBytes(bytes);
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }

    /** RFC 7636 §4.2. */
    private static String challengeOf(String verifier) {
        try {
            byte[] hash = MessageDigest.getInstance("SHA-256").digest(verifier.getBytes(StandardCharsets.US_ASCII));
            return Base64.getUrlEncoder().withoutPadding().encodeToString(hash);
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
