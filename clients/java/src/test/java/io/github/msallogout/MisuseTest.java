package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.aad.msal4j.ClientCredentialParameters;
import com.microsoft.aad.msal4j.ConfidentialClientApplication;
import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.zaxxer.hikari.HikariDataSource;
import java.sql.Connection;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import javax.sql.DataSource;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

/** Typical mistakes: each gives a message that says what to do. */
class MisuseTest {
    private final Fixture app = new Fixture();

    @AfterEach
    void close() {
        app.close();
    }

    private static String messageOf(Executable mistake) {
        TokenCacheMisuseException misuse = assertThrows(TokenCacheMisuseException.class, mistake);
        assertEquals("ERR_TOKEN_CACHE_MISUSE", misuse.code());
        return misuse.getMessage();
    }

    private static void assertSays(String expected, Executable mistake) {
        String message = messageOf(mistake);
        assertTrue(message.contains(expected), message);
    }

    @Test
    void aDataSourceWhoseConnectionsAreInATransaction() throws Exception {
        Person alice = Person.someone();
        try (HikariDataSource pool = Fixture.pool(Fixture.databaseUrl(), false)) {
            SharedTokenCache tokenCache = app.build(pool, null);
            assertSays("with auto-commit on", () -> app.redeem(tokenCache.forLogin(), alice, Fixture.SCOPES));
            assertSays("with auto-commit on", tokenCache::check);
            assertSays("with auto-commit on", () -> tokenCache.onPurge(revoked -> {}));
        }
        assertNull(app.stored(alice.subject()));
    }

    @Test
    void aTransactionOfTheAppsOwnThreadIsNotJoined() throws Exception {
        Person alice = Person.someone();
        // As Spring's TransactionAwareDataSourceProxy does: the connection is the thread's.
        ThreadLocal<Connection> bound = new ThreadLocal<>();
        DataSource byThread = Proxies.of(
                DataSource.class,
                (method, arguments) -> bound.get() != null ? bound.get() : app.owner.getConnection());
        try (Connection own = app.owner.getConnection()) {
            own.setAutoCommit(false);
            bound.set(own);
            SharedTokenCache tokenCache = app.build(byThread, null);
            tokenCache.check();
            own.rollback();
        }
        bound.remove();
        assertNull(app.stored(alice.subject()));
    }

    @Test
    void aRoleThatIsNotRegistered() {
        DataSource stranger = app.role();
        DataSource other = app.role("client-" + UUID.randomUUID());
        app.query("select msal_logout.register_app(?, ?)", "closed-" + app.hashCode(), app.role().getUser());
        SharedTokenCache closed = SharedTokenCache.of(other, "closed-" + app.hashCode());
        assertSays("select msal_logout.register_app(", () -> closed.isSessionActive("i", "s", null));
        assertSays("select msal_logout.register_app(", () -> SharedTokenCache.of(stranger, "client-b").check());
        assertSays("select msal_logout.register_app('closed-", closed::check);
    }

    @Test
    void oneAspectForTwoUsers() throws Exception {
        Person alice = Person.someone();
        Person bob = Person.someone();
        ConfidentialClientApplication shared = app.application(app.tokenCache.forLogin());
        Fixture.get(shared.acquireToken(Fixture.code(alice, Fixture.SCOPES)));
        String before = app.stored(alice.subject());
        assertSays(
                "make one for each sign-in",
                () -> Fixture.get(shared.acquireToken(Fixture.code(bob, Fixture.SCOPES))));
        assertNull(app.stored(bob.subject()));
        assertEquals(before, app.stored(alice.subject()));

        ITokenCacheAccessAspect ofAlice = app.tokenCache.forAccount(alice.subject());
        assertSays("each operation of a user", () -> app.silent(ofAlice, bob, Fixture.SCOPES, false));
        assertSays(
                "make one for each sign-in",
                () -> app.redeem(app.tokenCache.forAccount(alice.subject()), bob, Fixture.SCOPES));
        assertEquals(before, app.stored(alice.subject()));
    }

    @Test
    void oneAspectInTwoApplications() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        ITokenCacheAccessAspect aspect = app.tokenCache.forAccount(alice.subject());
        app.silent(aspect, alice, Fixture.SCOPES, false);
        assertSays(
                "one aspect serves one ConfidentialClientApplication",
                () -> app.silent(aspect, alice, Fixture.SCOPES, false));
    }

    @Test
    void aTokenCacheOfAnotherClientId() {
        assertSays(
                "has the client id \"client-b\", and the token cache \"client-a\"",
                () -> Fixture.get(app.application(app.tokenCache.forAccount("x"), Person.AUTHORITY, "client-b")
                        .getAccounts()));
    }

    @Test
    void clientCredentialsInAUsersCacheAndAUserInAnApps() throws Exception {
        Person alice = Person.someone();
        assertSays(
                "for client credentials use forApp",
                () -> Fixture.get(app.application(app.tokenCache.forLogin())
                        .acquireToken(ClientCredentialParameters.builder(Set.of("s/.default")).build())));
        assertSays(
                "forApp is for client credentials",
                () -> app.redeem(app.tokenCache.forApp("client-a." + UUID.randomUUID()), alice, Fixture.SCOPES));
        app.redeem(alice);
        String before = app.stored(alice.subject());
        Fixture.get(app.application(app.tokenCache.forAccount(alice.subject()))
                .acquireToken(ClientCredentialParameters.builder(Set.of("s/.default")).build()));
        assertEquals(before, app.stored(alice.subject()), "the app's own token is not the user's");
    }

    @Test
    void anIssueTimeInMilliseconds() {
        app.endpoint.change = (answer, claims) ->
                claims.put("iat", new Json.Literal(Long.toString(System.currentTimeMillis())));
        Person alice = Person.someone();
        assertSays("\"issued_at\" must be in seconds", () -> app.redeem(alice));
        assertNull(app.stored(alice.subject()));
    }

    @Test
    void noIdToken() {
        app.endpoint.change = (answer, claims) -> answer.put("id_token", "");
        assertSays("ask for the scope \"openid\"", () -> app.redeem(Person.someone()));
        app.endpoint.change = (answer, claims) -> claims.put("aud", "client-z");
        assertSays("no ID token for the client id \"client-a\"", () -> app.redeem(Person.someone()));
    }

    @Test
    void twoUsersUnderOneAccountId() throws Exception {
        String shared = "uid-" + UUID.randomUUID() + ".utid";
        Person first = new Person(shared, "first-" + UUID.randomUUID(), "s1-" + UUID.randomUUID(), null, Person.ISSUER);
        Person second = new Person(shared, "second-" + UUID.randomUUID(), "s2-" + UUID.randomUUID(), null, Person.ISSUER);
        app.redeem(first);
        String before = app.stored(shared);
        assertSays("two users have one account id", () -> app.redeem(second));
        assertEquals(before, app.stored(shared));
    }

    @Test
    void whatIsMissing() {
        assertSays("a home account id is missing", () -> app.tokenCache.forAccount(null));
        assertSays("a home account id is missing", () -> app.tokenCache.removeAccount(""));
        assertSays("a partition key is missing", () -> app.tokenCache.forApp(null));
        assertSays("an assertion is missing", () -> app.tokenCache.forAssertion(""));
        assertSays("a DataSource is missing", () -> SharedTokenCache.of(null, "client-a"));
        assertSays("a client id is missing", () -> SharedTokenCache.of(app.owner, null));
        assertSays("the client id is empty", () -> SharedTokenCache.of(app.owner, " "));
        assertSays("a listener is missing", () -> app.tokenCache.onPurge(null));
        assertSays("\"sid\" or a \"subject\"", () -> app.tokenCache.isSessionActive("issuer", "", null));
        assertSays("\"issuer\"", () -> new SignedInSession(null, "sid", null));
        assertSays("no ID token", () -> SignedInSession.of("an access token"));
        assertSays("no ID token", () -> SignedInSession.of(null));
        assertSays("a session is missing", () -> app.tokenCache.isSessionActive(null));
        assertSays("a session is missing", () -> SignOutFilter.remember(null, null));
        assertSays("a token cache is missing", () -> new SignOutFilter(null));
        assertSays("a function is missing", () -> new SignOutFilter(app.tokenCache, null, null, null));
        SharedTokenCache.Builder builder = SharedTokenCache.builder(app.owner, "client-a");
        assertSays("the time limit must be at least 100 ms", () -> builder.timeLimit(Duration.ZERO));
        assertSays("the time to live must be at least 1000 ms", () -> builder.timeToLive(null));
        assertSays("encryption is missing", () -> builder.encryption(null));
    }

    @Test
    void anIdThatNoDatabaseCanStore() {
        for (String id : List.of("a\0b", "a\ud800b")) {
            assertSays("see where the id comes from", () -> app.tokenCache.removeAccount(id));
            assertSays("see where the id comes from", () -> app.tokenCache.isSessionActive("issuer", id, null));
        }
        app.tokenCache.removeAccount("\ud835\udcb3");
    }

    @Test
    void aPartitionOfAnother() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        SharedTokenCache encrypted = app.build(app.owner, Encryption.of("k", Map.of("k", new byte[32])));
        assertSays(
                "another key for an app's row",
                () -> Fixture.get(app.application(encrypted.forApp(alice.subject()))
                        .acquireToken(ClientCredentialParameters.builder(Set.of("s/.default")).build())));
    }

    @Test
    void aDatabaseThatCannotBeWritten() {
        String url = Fixture.databaseUrl() + "&options=-c%20default_transaction_read_only=on";
        try (HikariDataSource pool = Fixture.pool(url)) {
            SharedTokenCache tokenCache = app.build(pool, null);
            assertSays("go to the primary", () -> app.redeem(tokenCache.forLogin(), Person.someone(), Fixture.SCOPES));
        }
    }

    @Test
    void noMessageHasATokenInIt() {
        String secret = "secret-" + UUID.randomUUID();
        app.endpoint.change = (answer, claims) -> {
            answer.put("access_token", secret);
            answer.put("refresh_token", secret);
            claims.put("iat", new Json.Literal(Long.toString(System.currentTimeMillis())));
        };
        Throwable cause = assertThrows(TokenCacheMisuseException.class, () -> app.redeem(Person.someone()));
        while (cause != null) {
            assertFalse(cause.toString().contains(secret), cause.toString());
            cause = cause.getCause();
        }
    }
}
