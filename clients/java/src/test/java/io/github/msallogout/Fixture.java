package io.github.msallogout;

import com.microsoft.aad.msal4j.AuthorizationCodeParameters;
import com.microsoft.aad.msal4j.ClientCredentialFactory;
import com.microsoft.aad.msal4j.ClientCredentialParameters;
import com.microsoft.aad.msal4j.ConfidentialClientApplication;
import com.microsoft.aad.msal4j.IAccount;
import com.microsoft.aad.msal4j.IAuthenticationResult;
import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.microsoft.aad.msal4j.ITenantProfile;
import com.microsoft.aad.msal4j.OnBehalfOfParameters;
import com.microsoft.aad.msal4j.SilentParameters;
import com.microsoft.aad.msal4j.UserAssertion;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.IOException;
import java.net.MalformedURLException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import javax.sql.DataSource;
import org.postgresql.ds.PGSimpleDataSource;

/** The database and the service that the run has started, and real MSAL4J applications on both. */
final class Fixture implements AutoCloseable {
    static final String CLIENT_ID = "client-a";
    static final Set<String> SCOPES = Set.of("api-1");
    private static final HttpClient HTTP = HttpClient.newHttpClient();

    final HikariDataSource owner;
    final List<String> warnings = new CopyOnWriteArrayList<>();
    final TokenEndpoint endpoint = new TokenEndpoint();
    final SharedTokenCache tokenCache;
    private final List<String> roles = new ArrayList<>();

    Fixture() {
        this(null);
    }

    Fixture(Encryption encryption) {
        owner = pool(databaseUrl());
        tokenCache = build(owner, encryption);
    }

    SharedTokenCache build(DataSource dataSource, Encryption encryption) {
        SharedTokenCache.Builder builder = SharedTokenCache.builder(dataSource, CLIENT_ID).onWarning(warnings::add);
        return (encryption == null ? builder : builder.encryption(encryption)).build();
    }

    /** A JDBC URL, with user and password in it. */
    static String databaseUrl() {
        return jdbcUrl(variable("TEST_DATABASE_URL"));
    }

    static String jdbcUrl(String text) {
        URI url = URI.create(text);
        String[] user = url.getRawUserInfo().split(":", 2);
        return "jdbc:postgresql://" + url.getHost() + ":" + (url.getPort() < 0 ? 5432 : url.getPort()) + url.getPath() + "?user="
                + user[0] + "&password=" + user[1];
    }

    static String variable(String name) {
        String value = System.getenv(name);
        if (value == null) {
            throw new IllegalStateException(name + " is not set: run the tests by \"npm run test:java\"");
        }
        return value;
    }

    static HikariDataSource pool(String jdbcUrl) {
        return pool(jdbcUrl, true);
    }

    static HikariDataSource pool(String jdbcUrl, boolean isAutoCommit) {
        HikariConfig config = new HikariConfig();
        config.setAutoCommit(isAutoCommit);
        config.setJdbcUrl(jdbcUrl);
        config.setMaximumPoolSize(10);
        config.setMinimumIdle(0);
        return new HikariDataSource(config);
    }

    static PGSimpleDataSource simple(String jdbcUrl) {
        PGSimpleDataSource dataSource = new PGSimpleDataSource();
        dataSource.setUrl(jdbcUrl);
        return dataSource;
    }

    /** A role that may log in, with a data source of its own. */
    PGSimpleDataSource role(String... clientIds) {
        String name = "role_" + UUID.randomUUID().toString().replace("-", "");
        execute("create role " + name + " login password 'test'");
        roles.add(name);
        for (String clientId : clientIds) {
            query("select msal_logout.register_app(?, ?)", clientId, name);
        }
        PGSimpleDataSource dataSource = simple(databaseUrl());
        dataSource.setUser(name);
        dataSource.setPassword("test");
        return dataSource;
    }

    List<Map<String, Object>> query(String text, Object... arguments) {
        try (Connection connection = owner.getConnection();
                PreparedStatement statement = connection.prepareStatement(text)) {
            for (int i = 0; i < arguments.length; i += 1) {
                statement.setObject(i + 1, arguments[i]);
            }
            try (ResultSet result = statement.executeQuery()) {
                List<Map<String, Object>> rows = new ArrayList<>();
                int columns = result.getMetaData().getColumnCount();
                while (result.next()) {
                    Map<String, Object> row = new LinkedHashMap<>();
                    for (int i = 1; i <= columns; i += 1) {
                        row.put(result.getMetaData().getColumnLabel(i), result.getObject(i));
                    }
                    rows.add(row);
                }
                return rows;
            }
        } catch (SQLException failure) {
            throw new IllegalStateException(failure);
        }
    }

    void execute(String text) {
        try (Connection connection = owner.getConnection();
                PreparedStatement statement = connection.prepareStatement(text)) {
            statement.execute();
        } catch (SQLException failure) {
            throw new IllegalStateException(failure);
        }
    }

    /** The row of an account, read as the operator who may; null where there is none. */
    String stored(String partitionKey) {
        return query("select payload from msal_logout.token_cache where partition_key = ?", partitionKey).stream()
                .map(row -> new String((byte[]) row.get("payload"), StandardCharsets.UTF_8))
                .findFirst()
                .orElse(null);
    }

    Map<String, Object> contents(String partitionKey) {
        String text = stored(partitionKey);
        return text == null ? null : Json.parseObject(text);
    }

    static List<String> targets(Map<String, Object> contents) {
        return CacheContents.entitiesOf(contents, "AccessToken").values().stream()
                .map(entity -> (String) entity.get("target"))
                .sorted()
                .toList();
    }

    /** A real sign-out: the provider posts a logout token to the real service. By the sid, or by the subject. */
    static void signOut(String sid, String subject) {
        Map<String, Object> whom = new LinkedHashMap<>();
        if (sid != null) {
            whom.put("sid", sid);
        }
        if (subject != null) {
            whom.put("subject", subject);
        }
        try {
            HttpResponse<String> answer = HTTP.send(
                    HttpRequest.newBuilder(URI.create(variable("TEST_ENDPOINT") + "/control/sign-out"))
                            .POST(HttpRequest.BodyPublishers.ofString(Json.write(whom)))
                            .build(),
                    HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200) {
                throw new IllegalStateException("the sign-out was answered " + answer.statusCode() + " " + answer.body());
            }
        } catch (IOException failure) {
            throw new IllegalStateException(failure);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(interrupted);
        }
    }

    void signOut(Person person) {
        signOut(person.sid(), person.sid() == null ? person.subject() : null);
    }

    ConfidentialClientApplication application(ITokenCacheAccessAspect aspect) {
        return application(aspect, Person.AUTHORITY, CLIENT_ID);
    }

    ConfidentialClientApplication application(ITokenCacheAccessAspect aspect, String authority, String clientId) {
        return application(endpoint, aspect, authority, clientId);
    }

    static ConfidentialClientApplication application(
            TokenEndpoint endpoint, ITokenCacheAccessAspect aspect, String authority, String clientId) {
        try {
            return ConfidentialClientApplication.builder(clientId, ClientCredentialFactory.createFromSecret("secret"))
                    .authority(authority)
                    .httpClient(endpoint)
                    .setTokenCacheAccessAspect(aspect)
                    .build();
        } catch (MalformedURLException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    static AuthorizationCodeParameters code(Person person, Set<String> scopes) {
        return AuthorizationCodeParameters.builder(person.encode(Map.of()), URI.create("https://app.example/callback"))
                .scopes(scopes)
                .build();
    }

    /** Redeems the code of a person, as an app does at its redirect URI. */
    IAuthenticationResult redeem(ITokenCacheAccessAspect aspect, Person person, Set<String> scopes) throws Exception {
        return get(application(aspect).acquireToken(code(person, scopes)));
    }

    IAuthenticationResult redeem(Person person) throws Exception {
        return redeem(tokenCache.forLogin(), person, SCOPES);
    }

    IAuthenticationResult silent(Person person, Set<String> scopes, boolean forceRefresh) throws Exception {
        return silent(tokenCache.forAccount(person.homeAccountId()), person, scopes, forceRefresh);
    }

    IAuthenticationResult silent(
            ITokenCacheAccessAspect aspect, Person person, Set<String> scopes, boolean forceRefresh) throws Exception {
        return get(application(aspect).acquireTokenSilently(silentParameters(person.homeAccountId(), scopes, forceRefresh)));
    }

    static SilentParameters silentParameters(String homeAccountId, Set<String> scopes, boolean forceRefresh) {
        return SilentParameters.builder(scopes, account(homeAccountId, "login.example"))
                .forceRefresh(forceRefresh)
                .build();
    }

    IAuthenticationResult onBehalfOf(SharedTokenCache cache, String assertion, Set<String> scopes) throws Exception {
        return get(application(cache.forAssertion(assertion))
                .acquireToken(OnBehalfOfParameters.builder(scopes, new UserAssertion(assertion)).build()));
    }

    IAuthenticationResult appToken(SharedTokenCache cache, String partitionKey, Set<String> scopes) throws Exception {
        return get(application(cache.forApp(partitionKey)).acquireToken(ClientCredentialParameters.builder(scopes).build()));
    }

    static <T> T get(java.util.concurrent.Future<T> future) throws Exception {
        try {
            return future.get();
        } catch (ExecutionException failure) {
            throw failure.getCause() instanceof Exception cause ? cause : failure;
        }
    }

    /** An account as an app may have kept it: by its id alone. */
    static IAccount account(String homeAccountId, String environment) {
        return new KeptAccount(homeAccountId, environment);
    }

    private record KeptAccount(String homeAccountId, String environment) implements IAccount {
        @Override
        public String username() {
            return "";
        }

        @Override
        public Map<String, ITenantProfile> getTenantProfiles() {
            return Map.of();
        }
    }

    @Override
    public void close() {
        for (String role : roles) {
            execute("drop owned by " + role);
            execute("drop role " + role);
        }
        owner.close();
    }
}
