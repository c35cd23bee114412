package io.github.msallogout;

import com.microsoft.aad.msal4j.AuthorizationCodeParameters;
import com.microsoft.aad.msal4j.ClientCredentialFactory;
import com.microsoft.aad.msal4j.ClientCredentialParameters;
import com.microsoft.aad.msal4j.ConfidentialClientApplication;
import com.microsoft.aad.msal4j.IAuthenticationResult;
import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.microsoft.aad.msal4j.ITokenCacheAccessContext;
import com.microsoft.aad.msal4j.MsalException;
import com.microsoft.aad.msal4j.OnBehalfOfParameters;
import com.microsoft.aad.msal4j.SilentParameters;
import com.microsoft.aad.msal4j.UserAssertion;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.MalformedURLException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** Java's driver for the scenarios that all clients pass: {@code clients/conformance/README.md}, "The driver". */
final class Driver {
    private final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private final Map<String, CountDownLatch> held = new ConcurrentHashMap<>();
    private final Map<String, Object> settings;
    private final String clientId;
    private final String authority;
    private final boolean isOpenId;
    private final boolean isStock;
    private final HikariDataSource pool;
    private final SharedTokenCache tokenCache;
    private RevocationSubscription subscription;

    private Driver(Map<String, Object> settings) {
        this.settings = settings;
        clientId = text(settings, "clientId");
        authority = text(settings, "authority");
        isOpenId = "oidc".equals(settings.get("mode"));
        isStock = Boolean.TRUE.equals(settings.get("stock"));
        pool = Fixture.pool(Fixture.jdbcUrl(text(settings, "databaseUrl")));
        SharedTokenCache.Builder builder = SharedTokenCache.builder(pool, clientId).onWarning(System.err::println);
        Map<String, Object> encryption = Json.asObject(settings.get("encryption"));
        tokenCache = (encryption == null ? builder : builder.encryption(encryptionOf(encryption))).build();
    }

    public static void main(String[] arguments) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Map<String, Object> first = Json.parseObject(in.readLine());
        Driver driver = new Driver(first);
        driver.answer(first, "ok", Map.of());
        ExecutorService threads = Executors.newCachedThreadPool();
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            Map<String, Object> request = Json.parseObject(line);
            threads.execute(() -> driver.perform(request));
        }
        System.exit(0);
    }

    private static Encryption encryptionOf(Map<String, Object> settings) {
        Map<String, byte[]> keys = new LinkedHashMap<>();
        Json.asObject(settings.get("keys")).forEach((id, key) -> keys.put(id, HexFormat.of().parseHex((String) key)));
        Encryption encryption = Encryption.of(text(settings, "current"), keys);
        return Boolean.TRUE.equals(settings.get("allowPlain")) ? encryption.allowingPlain() : encryption;
    }

    private void perform(Map<String, Object> request) {
        try {
            answer(request, "ok", dispatch(request));
        } catch (Exception | Error failure) {
            Map<String, Object> error = new LinkedHashMap<>();
            error.put("code", codeOf(failure));
            error.put("message", String.valueOf(failure.getMessage()));
            answer(request, "error", error);
        }
    }

    private static String codeOf(Throwable failure) {
        if (failure instanceof TokenCacheException own) {
            return own.code();
        }
        if (failure instanceof MsalException msal) {
            return "cache_miss".equals(msal.errorCode()) ? "no_tokens" : String.valueOf(msal.errorCode());
        }
        return failure.getClass().getSimpleName();
    }

    private void answer(Map<String, Object> request, String name, Object value) {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("id", request.get("id"));
        line.put(name, value);
        out.println(Json.write(line));
    }

    private Map<String, Object> dispatch(Map<String, Object> request) throws Exception {
        return switch (text(request, "op")) {
            case "signIn" -> signIn(request);
            case "silent" -> silent(request);
            case "onBehalfOf" -> onBehalfOf(request);
            case "appToken" -> appToken(request);
            case "isSessionActive" ->
                Map.of("active", tokenCache.isSessionActive(
                        text(request, "issuer"), text(request, "sid"), text(request, "subject")));
            case "removeAccount" -> Map.of("removed", tokenCache.removeAccount(text(request, "account")));
            case "listen" -> {
                subscription = tokenCache.onPurge(this::revoked);
                yield Map.of();
            }
            case "stopListening" -> {
                subscription.close();
                yield Map.of();
            }
            case "release" -> {
                held.get(Json.write(request.get("of"))).countDown();
                yield Map.of();
            }
            default -> throw new IllegalArgumentException("no such operation");
        };
    }

    private void revoked(RevokedSession revoked) {
        Map<String, Object> session = new LinkedHashMap<>();
        session.put("issuer", revoked.issuer());
        session.put("sid", revoked.sid());
        session.put("subject", revoked.subject());
        session.put("homeAccountId", revoked.homeAccountId());
        out.println(Json.write(Map.of("event", "revoked", "session", session)));
    }

    private Map<String, Object> signIn(Map<String, Object> request) throws Exception {
        String code = text(request, "code");
        IAuthenticationResult result = Fixture.get(
                application(aspect(request, isStock ? stock(accountOf(code)) : tokenCache.forLogin()), new Edge(endpoint()))
                        .acquireToken(AuthorizationCodeParameters.builder(code, URI.create("https://app.example/callback"))
                                .scopes(scopes(request))
                                .build()));
        SignedInSession session = SignedInSession.of(result.idToken());
        Map<String, Object> ok = new LinkedHashMap<>();
        ok.put("homeAccountId", result.account().homeAccountId());
        ok.put("issuer", session.issuer());
        ok.put("sid", session.sid());
        ok.put("subject", session.subject());
        return ok;
    }

    /** Who signs in, as the code says. */
    private static String accountOf(String code) {
        byte[] person = Base64.getUrlDecoder().decode(code);
        return text(Json.parseObject(new String(person, StandardCharsets.UTF_8)), "homeAccountId");
    }

    private Map<String, Object> silent(Map<String, Object> request) throws Exception {
        String account = text(request, "account");
        Edge edge = new Edge(endpoint());
        String environment = URI.create(authority).getAuthority();
        return source(edge, Fixture.get(
                application(aspect(request, isStock ? stock(account) : tokenCache.forAccount(account)), edge)
                        .acquireTokenSilently(SilentParameters.builder(scopes(request), Fixture.account(account, environment))
                                .forceRefresh(Boolean.TRUE.equals(request.get("forceRefresh")))
                                .build())));
    }

    private Map<String, Object> onBehalfOf(Map<String, Object> request) throws Exception {
        String assertion = text(request, "assertion");
        Edge edge = new Edge(endpoint());
        return source(edge, Fixture.get(application(aspect(request, tokenCache.forAssertion(assertion)), edge)
                .acquireToken(OnBehalfOfParameters.builder(scopes(request), new UserAssertion(assertion)).build())));
    }

    private Map<String, Object> appToken(Map<String, Object> request) throws Exception {
        Edge edge = new Edge(endpoint());
        return source(edge, Fixture.get(application(tokenCache.forApp(text(request, "partition")), edge)
                .acquireToken(ClientCredentialParameters.builder(scopes(request)).build())));
    }

    private static Map<String, Object> source(Edge edge, IAuthenticationResult result) {
        return Map.of(
                "source", edge.tokenRequests.get() == 0 ? "cache" : "provider", "accessToken", result.accessToken());
    }

    private ITokenCacheAccessAspect stock(String homeAccountId) {
        return new StockAspect(pool, homeAccountId);
    }

    /** The aspect, which is held where the request says so: MSAL has its answer, and nothing is stored yet. */
    private ITokenCacheAccessAspect aspect(Map<String, Object> request, ITokenCacheAccessAspect aspect) {
        if (!"beforeSave".equals(request.get("hold"))) {
            return aspect;
        }
        return new ITokenCacheAccessAspect() {
            @Override
            public void beforeCacheAccess(ITokenCacheAccessContext context) {
                aspect.beforeCacheAccess(context);
            }

            @Override
            public void afterCacheAccess(ITokenCacheAccessContext context) {
                if (context.hasCacheChanged()) {
                    hold(request);
                }
                aspect.afterCacheAccess(context);
            }
        };
    }

    private void hold(Map<String, Object> request) {
        CountDownLatch release = new CountDownLatch(1);
        held.put(Json.write(request.get("id")), release);
        answer(request, "held", true);
        try {
            release.await();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private ConfidentialClientApplication application(ITokenCacheAccessAspect aspect, Edge edge)
            throws MalformedURLException {
        var builder = ConfidentialClientApplication.builder(
                        clientId, ClientCredentialFactory.createFromSecret(text(settings, "clientSecret")))
                .setTokenCacheAccessAspect(aspect);
        if (isOpenId) {
            OpenIdProvider provider = OpenIdProvider.of(authority, edge);
            return builder.authority(provider.authority()).httpClient(provider.httpClient()).build();
        }
        return builder.authority(authority + "/").httpClient(edge.forMsal()).build();
    }

    private String endpoint() {
        return text(settings, "endpoint");
    }

    private static Set<String> scopes(Map<String, Object> request) {
        Set<String> scopes = new LinkedHashSet<>();
        ((List<?>) request.get("scopes")).forEach(scope -> scopes.add((String) scope));
        return scopes;
    }

    private static String text(Map<String, Object> members, String name) {
        return (String) members.get(name);
    }
}
