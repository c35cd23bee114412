package example;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.msallogout.SharedTokenCache;
import java.net.CookieManager;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Instant;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.boot.test.context.TestConfiguration;
import org.springframework.context.annotation.Bean;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.security.oauth2.client.JdbcOAuth2AuthorizedClientService;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.annotation.RegisteredOAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.registration.ClientRegistration;
import org.springframework.security.oauth2.client.registration.ClientRegistrationRepository;
import org.springframework.security.oauth2.client.registration.InMemoryClientRegistrationRepository;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.test.context.DynamicPropertyRegistry;
import org.springframework.test.context.DynamicPropertySource;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.util.UriComponentsBuilder;

/** Real Spring Security, its own table, the real service. TEST_DATABASE_URL, TEST_ENDPOINT, TEST_ISSUER: by test:java. */
@SpringBootTest(webEnvironment = SpringBootTest.WebEnvironment.RANDOM_PORT)
class SecurityAppTest {
    private static final Provider PROVIDER = start();
    private static final long PATIENCE_SECONDS = 60;

    @Autowired
    private JdbcTemplate jdbc;

    @Autowired
    private SharedTokenCache tokenCache;

    @Autowired
    private ClientRegistrationRepository registrations;

    @Value("${local.server.port}")
    private int port;

    private final HttpClient http = HttpClient.newBuilder().cookieHandler(new CookieManager()).build();

    private static Provider start() {
        try {
            return new Provider();
        } catch (Exception failure) {
            throw new IllegalStateException(failure);
        }
    }

    @AfterAll
    static void stop() {
        PROVIDER.close();
    }

    @DynamicPropertySource
    static void properties(DynamicPropertyRegistry properties) {
        URI url = URI.create(System.getenv("TEST_DATABASE_URL"));
        String[] user = url.getRawUserInfo().split(":", 2);
        properties.add("spring.datasource.url", () -> "jdbc:postgresql://" + url.getAuthority().replaceFirst(".*@", "") + url.getPath());
        properties.add("spring.datasource.username", () -> user[0]);
        properties.add("spring.datasource.password", () -> user[1]);
        // Spring Security's own schema, which may be there from another run.
        properties.add("spring.sql.init.mode", () -> "always");
        properties.add("spring.sql.init.continue-on-error", () -> "true");
        properties.add(
                "spring.sql.init.schema-locations",
                () -> "classpath:org/springframework/security/oauth2/client/oauth2-client-schema-postgres.sql");
        properties.add("CLIENT_ID", () -> Provider.CLIENT_ID);
    }

    @TestConfiguration
    static class Configuration {
        @Bean
        ClientRegistrationRepository registrations() {
            return new InMemoryClientRegistrationRepository(ClientRegistration.withRegistrationId("provider")
                    .clientId(Provider.CLIENT_ID)
                    .clientSecret("secret")
                    .authorizationGrantType(AuthorizationGrantType.AUTHORIZATION_CODE)
                    .redirectUri("{baseUrl}/login/oauth2/code/{registrationId}")
                    .scope("openid")
                    .issuerUri(Provider.ISSUER)
                    .authorizationUri(PROVIDER.url + "/authorize")
                    .tokenUri(PROVIDER.url + "/token")
                    .jwkSetUri(PROVIDER.url + "/keys")
                    .build());
        }
    }

    @TestConfiguration
    @RestController
    static class TokenPage {
        @GetMapping("/token")
        String token(@RegisteredOAuth2AuthorizedClient("provider") OAuth2AuthorizedClient client) {
            return client.getAccessToken().getTokenValue();
        }
    }

    @BeforeEach
    void reset() {
        PROVIDER.beforeRefresh = () -> {};
    }

    private HttpResponse<String> open(String path) throws Exception {
        return http.send(
                HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path)).build(),
                HttpResponse.BodyHandlers.ofString());
    }

    /** Signs in as a browser does; the location after the callback. */
    private String signIn(Provider.Person person) throws Exception {
        var query = UriComponentsBuilder.fromUriString(
                        open("/oauth2/authorization/provider").headers().firstValue("location").orElseThrow())
                .build(true)
                .getQueryParams();
        String code = PROVIDER.codeOf(
                new Provider.Person(person.subject(), person.sid(), person.issuedAt(), query.getFirst("nonce")));
        return open("/login/oauth2/code/provider?code=" + code + "&state=" + query.getFirst("state"))
                .headers()
                .firstValue("location")
                .orElseThrow();
    }

    private static Provider.Person someone() {
        return new Provider.Person("user-" + UUID.randomUUID(), "sid-" + UUID.randomUUID(), Instant.now().minusSeconds(5), null);
    }

    private int rowsOf(Provider.Person person) {
        return jdbc.queryForObject(
                "select count(*) from oauth2_authorized_client where principal_name = ?", Integer.class, person.subject());
    }

    /** The provider's logout token, at the service. */
    private void signOut(Provider.Person person) {
        try {
            HttpResponse<String> answer = HttpClient.newHttpClient()
                    .send(
                            HttpRequest.newBuilder(URI.create(System.getenv("TEST_ENDPOINT") + "/control/sign-out"))
                                    .POST(HttpRequest.BodyPublishers.ofString("{\"sid\":\"" + person.sid() + "\"}"))
                                    .build(),
                            HttpResponse.BodyHandlers.ofString());
            assertEquals(200, answer.statusCode());
        } catch (Exception failure) {
            throw new IllegalStateException(failure);
        }
    }

    private void awaitNoRowOf(Provider.Person person) {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
        while (rowsOf(person) > 0 && System.nanoTime() < until) {
            LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(20));
        }
        assertEquals(0, rowsOf(person));
    }

    private void assertSignedOut() throws Exception {
        HttpResponse<String> answer = open("/token");
        assertEquals(302, answer.statusCode());
        assertTrue(answer.headers().firstValue("location").orElseThrow().endsWith("/oauth2/authorization/provider"));
    }

    @Test
    void springSecuritysOwnBackChannelLogoutLeavesTheTokens() throws Exception {
        Provider.Person alice = someone();
        signIn(alice);
        assertEquals(200, open("/token").statusCode());
        HttpResponse<String> answer = HttpClient.newHttpClient()
                .send(
                        HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + "/logout/connect/back-channel/provider"))
                                .header("Content-Type", "application/x-www-form-urlencoded")
                                .POST(HttpRequest.BodyPublishers.ofString("logout_token=" + PROVIDER.logoutTokenOf(alice)))
                                .build(),
                        HttpResponse.BodyHandlers.ofString());
        assertEquals(200, answer.statusCode());
        assertSignedOut();
        assertEquals(1, rowsOf(alice), "the refresh token is still there");
    }

    @Test
    void aSignOutEndsTheSessionAndRemovesTheTokens() throws Exception {
        Provider.Person alice = someone();
        assertEquals("/", URI.create(signIn(alice)).getPath());
        assertEquals(200, open("/token").statusCode());
        assertEquals(1, rowsOf(alice));
        signOut(alice);
        awaitNoRowOf(alice);
        assertSignedOut();
    }

    @Test
    void aRefreshUnderWayBringsNothingBack() throws Exception {
        Provider.Person alice = someone();
        signIn(alice);
        PROVIDER.beforeRefresh = () -> {
            signOut(alice);
            awaitNoRowOf(alice);
        };
        assertTrue(open("/token").statusCode() != 200);
        assertEquals(0, rowsOf(alice));
        assertSignedOut();
    }

    @Test
    void withoutItTheRefreshBringsTheRowBack() throws Exception {
        Provider.Person alice = someone();
        signIn(alice);
        JdbcOAuth2AuthorizedClientService plain = new JdbcOAuth2AuthorizedClientService(jdbc, registrations);
        OAuth2AuthorizedClient loaded = plain.loadAuthorizedClient("provider", alice.subject());
        signOut(alice);
        awaitNoRowOf(alice);
        plain.saveAuthorizedClient(
                loaded,
                new org.springframework.security.authentication.TestingAuthenticationToken(alice.subject(), null));
        assertEquals(1, rowsOf(alice), "so the check can fail");
    }

    @Test
    void aLoginThatComesAfterItsSignOutStoresNothing() throws Exception {
        Provider.Person alice = someone();
        signOut(alice);
        assertTrue(signIn(alice).contains("error"));
        assertEquals(0, rowsOf(alice));
        assertSignedOut();
    }

    @Test
    void whatWasSignedOutWhileNobodyListenedGoesAtTheStart() throws Exception {
        Provider.Person alice = someone();
        Provider.Person bob = someone();
        signIn(alice);
        signIn(bob);
        jdbc.update("update oauth2_authorized_client set principal_name = 'ghost' where principal_name = ?", alice.subject());
        JdbcOAuth2AuthorizedClientService plain = new JdbcOAuth2AuthorizedClientService(jdbc, registrations);
        try (SignedInClients started = new SignedInClients(plain, jdbc, tokenCache)) {
            assertEquals(0, jdbc.queryForObject(
                    "select count(*) from oauth2_authorized_client where principal_name = 'ghost'", Integer.class));
            assertEquals(1, rowsOf(bob));
            assertTrue(started.loadAuthorizedClient("provider", bob.subject()) != null);
        }
    }
}
