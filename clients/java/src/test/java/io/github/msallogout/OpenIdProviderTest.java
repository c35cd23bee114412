package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.aad.msal4j.AuthorizationRequestUrlParameters;
import com.microsoft.aad.msal4j.ClientCredentialFactory;
import com.microsoft.aad.msal4j.ConfidentialClientApplication;
import com.microsoft.aad.msal4j.IAuthenticationResult;
import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.microsoft.aad.msal4j.SilentParameters;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class OpenIdProviderTest {
    private final Fixture app = new Fixture();
    private final List<String> asked = new ArrayList<>();
    private final Map<String, Object> discovery = new LinkedHashMap<>();
    private HttpServer server;
    private String issuer;

    @BeforeEach
    void start() throws IOException {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        issuer = "http://127.0.0.1:" + server.getAddress().getPort() + "/realms/Shop";
        discovery.put("issuer", issuer);
        discovery.put("authorization_endpoint", issuer + "/auth?theme=a");
        discovery.put("token_endpoint", issuer + "/the/token");
        discovery.put("end_session_endpoint", issuer + "/logout");
        server.createContext("/", this::answer);
        server.start();
    }

    @AfterEach
    void stop() {
        server.stop(0);
        app.close();
    }

    private void answer(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        asked.add(path);
        String body = "";
        int status = 200;
        if (path.endsWith("/.well-known/openid-configuration")) {
            body = Json.write(discovery);
        } else if (path.equals("/realms/Shop/the/token")) {
            Map<String, String> form = TokenEndpoint.formOf(
                    new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8));
            assertEquals("secret", form.get("client_secret"));
            Person person = Person.decode(form.containsKey("code") ? form.get("code") : form.get("refresh_token"));
            body = Json.write(Map.of(
                    "access_token", "at-" + UUID.randomUUID(),
                    "refresh_token", person.encode(Map.of()),
                    "token_type", "Bearer",
                    "expires_in", new Json.Literal("3600"),
                    "scope", form.get("scope"),
                    "id_token", Person.jwt(Map.of(
                            "iss", issuer, "sub", person.subject(), "sid", person.sid(), "aud", Fixture.CLIENT_ID,
                            "preferred_username", "ann", "iat", new Json.Literal(Long.toString(Person.now()))))));
        } else {
            status = 404;
        }
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.sendResponseHeaders(status, bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }

    private ConfidentialClientApplication application(OpenIdProvider provider, ITokenCacheAccessAspect aspect) throws Exception {
        return ConfidentialClientApplication.builder(Fixture.CLIENT_ID, ClientCredentialFactory.createFromSecret("secret"))
                .authority(provider.authority())
                .httpClient(provider.httpClient())
                .setTokenCacheAccessAspect(aspect)
                .build();
    }

    @Test
    void aLoginASilentTokenAndARefreshGoToTheProvidersOwnEndpoints() throws Exception {
        OpenIdProvider provider = OpenIdProvider.of(issuer);
        Person alice = Person.someone();
        IAuthenticationResult login = Fixture.get(
                application(provider, app.tokenCache.forLogin()).acquireToken(Fixture.code(alice, Fixture.SCOPES)));
        assertEquals(alice.subject(), login.account().homeAccountId());
        for (Set<String> scopes : List.of(Fixture.SCOPES, Set.of("api-2"), Set.of("api-2"))) {
            Fixture.get(application(provider, app.tokenCache.forAccount(alice.subject()))
                    .acquireTokenSilently(SilentParameters.builder(scopes, login.account()).build()));
        }
        assertEquals(
                List.of("/realms/Shop/.well-known/openid-configuration", "/realms/Shop/the/token", "/realms/Shop/the/token"),
                asked);
    }

    @Test
    void itsRowsAreAsTheOtherLibrariesWriteThem() throws Exception {
        OpenIdProvider provider = OpenIdProvider.of(issuer);
        Person alice = Person.someone();
        Fixture.get(application(provider, app.tokenCache.forLogin()).acquireToken(Fixture.code(alice, Fixture.SCOPES)));
        Map<String, Object> contents = app.contents(alice.subject());
        Map<String, Object> account = CacheContents.entitiesOf(contents, "Account").values().iterator().next();
        String host = URI.create(issuer).getAuthority();
        assertEquals(
                Map.of("home_account_id", alice.subject(), "environment", host, "realm", "", "local_account_id", alice.subject(),
                        "username", "ann", "name", "", "authority_type", "Generic", "tenantProfiles", List.of(
                                "{\"tenantId\":\"\",\"localAccountId\":\"" + alice.subject() + "\",\"username\":\"ann\",\"isHomeTenant\":false}")),
                account);
        Map<String, Object> accessToken = CacheContents.entitiesOf(contents, "AccessToken").values().iterator().next();
        assertEquals("realms", accessToken.get("realm"));
        assertEquals(host, accessToken.get("environment"));
        assertEquals("", CacheContents.entitiesOf(contents, "IdToken").values().iterator().next().get("realm"));
    }

    @Test
    void theBrowserIsSentToTheProvidersOwnEndpoints() throws Exception {
        OpenIdProvider provider = OpenIdProvider.of(issuer);
        URI url = provider.authorizationUrl(
                application(provider, app.tokenCache.forLogin()),
                AuthorizationRequestUrlParameters.builder("https://app.example/callback", Set.of("openid"))
                        .state("the state")
                        .nonce("the-nonce")
                        .codeChallenge("challenge")
                        .codeChallengeMethod("S256")
                        .build());
        assertTrue(url.toString().startsWith(issuer + "/auth?theme=a&"), url.toString());
        Map<String, String> query = TokenEndpoint.formOf(url.getRawQuery());
        assertEquals("the state", query.get("state"));
        assertEquals("the-nonce", query.get("nonce"));
        assertEquals("https://app.example/callback", query.get("redirect_uri"));
        assertFalse(query.containsKey("response_mode"));
        assertEquals("challenge", query.get("code_challenge"));
        assertEquals(URI.create(issuer + "/logout"), provider.endSessionEndpoint().orElseThrow());
    }

    @Test
    void aProviderThatIsDownIsAskedAgain() throws Exception {
        OpenIdProvider provider = OpenIdProvider.of(issuer);
        server.stop(0);
        UncheckedIOException down = assertThrows(UncheckedIOException.class, provider::endSessionEndpoint);
        assertTrue(down.getMessage().contains("is the issuer right, and up?"), down.getMessage());
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), URI.create(issuer).getPort()), 0);
        server.createContext("/", this::answer);
        server.start();
        assertTrue(provider.endSessionEndpoint().isPresent());
    }

    @Test
    void whatCannotWorkIsSaid() {
        assertTrue(messageOf(() -> OpenIdProvider.of("http://login.example.com")).contains("must be an https address"));
        assertTrue(messageOf(() -> OpenIdProvider.of("login")).contains("must be an https address"));
        assertTrue(messageOf(() -> OpenIdProvider.of(issuer + "/").endSessionEndpoint()).contains("names another issuer"));
        discovery.put("token_endpoint", "http://elsewhere.example/token");
        assertTrue(messageOf(() -> OpenIdProvider.of(issuer).endSessionEndpoint()).contains("token_endpoint"));
        discovery.put("token_endpoint", issuer + "/the/token");
        discovery.remove("end_session_endpoint");
        assertFalse(OpenIdProvider.of(issuer).endSessionEndpoint().isPresent());
    }

    private static String messageOf(org.junit.jupiter.api.function.Executable mistake) {
        return assertThrows(TokenCacheMisuseException.class, mistake).getMessage();
    }
}
