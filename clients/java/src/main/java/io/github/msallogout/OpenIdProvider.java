package io.github.msallogout;

import com.microsoft.aad.msal4j.AuthorizationRequestUrlParameters;
import com.microsoft.aad.msal4j.ConfidentialClientApplication;
import com.microsoft.aad.msal4j.HttpRequest;
import com.microsoft.aad.msal4j.IHttpClient;
import com.microsoft.aad.msal4j.IHttpResponse;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.http.HttpClient;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Collectors;

/**
 * An OpenID provider that is not Microsoft's, for MSAL4J. MSAL4J's own {@code oidcAuthority} makes no account for an answer
 * without Microsoft's {@code client_info}, and sends refreshes to Microsoft's paths: nothing is found silently. This lets
 * MSAL4J treat the provider as it treats AD FS, whose accounts are bare subjects, and puts the provider's own endpoints in
 * place of AD FS's:
 *
 * <pre>{@code
 * OpenIdProvider provider = OpenIdProvider.of("https://login.example.com");
 *
 * ConfidentialClientApplication.builder(clientId, credential)
 *     .authority(provider.authority())
 *     .httpClient(provider.httpClient())
 *     .setTokenCacheAccessAspect(tokenCache.forLogin())
 *     .build();
 * }</pre>
 *
 * <p>{@code account().homeAccountId()} is then the ID token's {@code sub}, as with MSAL Node and MSAL Python. The provider's
 * discovery document is read with the first use, and kept. MSAL4J sends a client secret in the body
 * ({@code client_secret_post}).
 */
public final class OpenIdProvider {
    private static final Duration LIMIT = Duration.ofSeconds(10);
    private static final Set<String> LOOPBACK = Set.of("localhost", "127.0.0.1", "[::1]");
    private static final String TOKEN_PATH = "/adfs/oauth2/token";
    // By MSAL4J's environment: what is stored of such a provider is for other libraries too, which know no AD FS.
    private static final Map<String, String> TENANTS = new ConcurrentHashMap<>();

    private final URI issuer;
    private final String issuerText;
    private final HttpClient http;
    private volatile Metadata metadata;

    private record Metadata(URI authorizationEndpoint, URI tokenEndpoint, URI endSessionEndpoint) {}

    private OpenIdProvider(String issuer, HttpClient http) {
        this.issuerText = issuer;
        this.issuer = endpoint(issuer, "the issuer");
        this.http = http;
        String[] path = String.valueOf(this.issuer.getRawPath()).split("/");
        TENANTS.put(this.issuer.getRawAuthority().toLowerCase(Locale.ROOT), path.length > 1 ? path[1] : "");
    }

    /**
     * The realm that other libraries store access tokens of a provider under: the first part of its issuer's path.
     *
     * @return null where the environment is no OpenID provider's that this app uses
     */
    static String tenantOf(Object environment) {
        return environment instanceof String host ? TENANTS.get(host) : null;
    }

    /**
     * A provider that is reached with Java's own HTTP client.
     *
     * @param issuer its issuer, as its ID tokens have it in {@code iss}
     * @return the provider, which was not asked anything yet
     * @throws TokenCacheMisuseException where it is no HTTPS address
     */
    public static OpenIdProvider of(String issuer) {
        return of(issuer, HttpClient.newBuilder().connectTimeout(LIMIT).build());
    }

    /**
     * A provider that is reached through a proxy, or with certificates of its own.
     *
     * @param issuer its issuer, as its ID tokens have it in {@code iss}
     * @param http what requests are sent with; a request is given up after 10 seconds
     * @return the provider, which was not asked anything yet
     * @throws TokenCacheMisuseException where the issuer is no HTTPS address
     */
    public static OpenIdProvider of(String issuer, HttpClient http) {
        return new OpenIdProvider(issuer, http);
    }

    /**
     * For {@code ConfidentialClientApplication.builder(…).authority(…)}.
     *
     * @return an address at the provider's host, which is never asked
     */
    public String authority() {
        return "https://" + issuer.getRawAuthority() + "/adfs/";
    }

    /**
     * For {@code ConfidentialClientApplication.builder(…).httpClient(…)}.
     *
     * @return sends MSAL4J's requests to the provider's own endpoints
     */
    public IHttpClient httpClient() {
        return this::send;
    }

    /**
     * Where the browser is sent to sign in: instead of MSAL4J's {@code getAuthorizationRequestUrl}. The code comes back in the
     * query of a GET, with which a browser sends the app's session cookie, and not in a form from another site.
     *
     * @param application MSAL4J's, with this provider's {@link #authority}
     * @param parameters the request, with {@code state}, {@code nonce} and PKCE
     * @return an address of the provider's
     * @throws TokenCacheMisuseException where the provider's discovery document names another issuer, or endpoints without HTTPS
     * @throws UncheckedIOException where it cannot be read
     */
    public URI authorizationUrl(ConfidentialClientApplication application, AuthorizationRequestUrlParameters parameters) {
        String query = Arrays.stream(application.getAuthorizationRequestUrl(parameters).getQuery().split("&"))
                .filter(parameter -> !parameter.startsWith("response_mode="))
                .collect(Collectors.joining("&"));
        String endpoint = discovered().authorizationEndpoint().toString();
        return URI.create(endpoint + (endpoint.indexOf('?') < 0 ? "?" : "&") + query);
    }

    /**
     * Where the browser is sent to sign out (OpenID Connect RP-Initiated Logout 1.0).
     *
     * @return the provider's {@code end_session_endpoint}; empty where it has none
     * @throws TokenCacheMisuseException where the provider's discovery document names another issuer, or endpoints without HTTPS
     * @throws UncheckedIOException where it cannot be read
     */
    public Optional<URI> endSessionEndpoint() {
        return Optional.ofNullable(discovered().endSessionEndpoint());
    }

    private IHttpResponse send(HttpRequest request) throws IOException {
        if (!TOKEN_PATH.equals(request.url().getPath())) {
            throw new IOException("MSAL4J asks \"" + request.url().getPath() + "\", which no OpenID provider has");
        }
        java.net.http.HttpRequest.Builder sent = java.net.http.HttpRequest.newBuilder(discover().tokenEndpoint())
                .timeout(LIMIT)
                .POST(java.net.http.HttpRequest.BodyPublishers.ofString(request.body()));
        if (request.headers() != null) {
            request.headers().forEach(sent::setHeader);
        }
        HttpResponse<String> answer = exchange(sent.build());
        return new Answer(answer.statusCode(), answer.headers().map(), answer.body());
    }

    private record Answer(int statusCode, Map<String, List<String>> headers, String body) implements IHttpResponse {}

    private Metadata discovered() {
        try {
            return discover();
        } catch (IOException failure) {
            throw new UncheckedIOException(failure.getMessage(), failure);
        }
    }

    private Metadata discover() throws IOException {
        Metadata known = metadata;
        if (known == null) {
            known = fetch();
            metadata = known; // read twice by two threads at once, it is the same
        }
        return known;
    }

    /** OpenID Connect Discovery 1.0 §4. */
    private Metadata fetch() throws IOException {
        String url = issuerText.replaceAll("/$", "") + "/.well-known/openid-configuration";
        HttpResponse<String> answer;
        try {
            answer = exchange(java.net.http.HttpRequest.newBuilder(URI.create(url)).timeout(LIMIT).build());
        } catch (IOException unreachable) {
            throw new IOException("\"" + url + "\" cannot be read: is the issuer right, and up?", unreachable);
        }
        Map<String, Object> document = answer.statusCode() == 200 ? Json.parseObject(answer.body()) : null;
        if (document == null) {
            throw new IOException(
                    "\"" + url + "\" answered " + answer.statusCode() + (answer.statusCode() == 200 ? " without a JSON object" : ""));
        }
        if (!issuerText.equals(document.get("issuer"))) { // §4.3
            throw new TokenCacheMisuseException("\"" + url + "\" names another issuer: use that one, letter by letter: \""
                    + document.get("issuer") + "\"");
        }
        return new Metadata(
                endpoint(document.get("authorization_endpoint"), "\"authorization_endpoint\" of \"" + url + "\""),
                endpoint(document.get("token_endpoint"), "\"token_endpoint\" of \"" + url + "\""),
                document.get("end_session_endpoint") == null
                        ? null
                        : endpoint(document.get("end_session_endpoint"), "\"end_session_endpoint\" of \"" + url + "\""));
    }

    private HttpResponse<String> exchange(java.net.http.HttpRequest request) throws IOException {
        try {
            return http.send(request, HttpResponse.BodyHandlers.ofString());
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new IOException("interrupted while waiting for the provider", interrupted);
        }
    }

    private static URI endpoint(Object value, String what) {
        try {
            URI uri = new URI(String.valueOf(value));
            boolean isSafe = "https".equals(uri.getScheme())
                    || "http".equals(uri.getScheme()) && LOOPBACK.contains(String.valueOf(uri.getHost()));
            if (isSafe && uri.getHost() != null) {
                return uri;
            }
        } catch (URISyntaxException noAddress) {
            // as one of another scheme
        }
        throw new TokenCacheMisuseException(what + " must be an https address, and is \"" + value + "\"");
    }
}
