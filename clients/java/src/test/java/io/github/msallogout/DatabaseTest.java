package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.sql.Connection;
import java.sql.SQLException;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import javax.sql.DataSource;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.postgresql.PGConnection;

/** What the database does to a client, and what the client then does. */
class DatabaseTest {
    private static final Duration LIMIT = Duration.ofMillis(400);
    // Far above the limit: what hangs is cut off here, at any speed of the machine.
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    private final Fixture app = new Fixture();

    @AfterEach
    void close() {
        app.close();
    }

    private SharedTokenCache limited(DataSource dataSource) {
        return SharedTokenCache.builder(dataSource, Fixture.CLIENT_ID).timeLimit(LIMIT).build();
    }

    private static TokenCacheDatabaseException failureOf(SharedTokenCache tokenCache) {
        TokenCacheDatabaseException failure = assertTimeoutPreemptively(
                PATIENCE,
                () -> assertThrows(TokenCacheDatabaseException.class, () -> tokenCache.isSessionActive("i", "s", null)));
        assertEquals("ERR_TOKEN_CACHE_DATABASE", failure.code());
        return failure;
    }

    @Test
    void aServerThatAcceptsAndIsSilentIsGivenUp() throws Exception {
        try (ServerSocket silent = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
            SharedTokenCache tokenCache =
                    limited(Fixture.simple("jdbc:postgresql://127.0.0.1:" + silent.getLocalPort() + "/postgres?user=u"));
            assertTrue(failureOf(tokenCache).getMessage().contains("within 400 ms"));
            assertTimeoutPreemptively(PATIENCE, () -> assertThrows(TokenCacheDatabaseException.class, tokenCache::check));
            assertTimeoutPreemptively(
                    PATIENCE, () -> assertThrows(TokenCacheDatabaseException.class, () -> tokenCache.onPurge(revoked -> {})));
        }
    }

    @Test
    void aServerThatIsNotThereIsSaidToBeSo() throws Exception {
        int port;
        try (ServerSocket closed = new ServerSocket(0)) {
            port = closed.getLocalPort();
        }
        TokenCacheDatabaseException failure =
                failureOf(SharedTokenCache.of(Fixture.simple("jdbc:postgresql://127.0.0.1:" + port + "/p?user=u&password=geheim"), "c"));
        assertTrue(failure.getMessage().contains("SQLSTATE 08001"), failure.getMessage());
        assertFalse(failure.getMessage().contains("geheim"));
    }

    @Test
    void aPoolWithoutAFreeConnectionIsNotWaitedForLonger() throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(Fixture.databaseUrl());
        config.setMaximumPoolSize(1);
        try (HikariDataSource pool = new HikariDataSource(config)) {
            try (Connection taken = pool.getConnection()) {
                assertNotNull(taken);
                assertTrue(failureOf(limited(pool)).getMessage().contains("waiting for a connection included"));
            }
            assertFalse(limited(pool).isSessionActive("i", "s", null), "and it serves again");
        }
    }

    @Test
    void aLockThatSomebodyHoldsIsNotWaitedForLongerAndNothingIsStored() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        try (Connection other = app.owner.getConnection()) {
            other.setAutoCommit(false);
            other.createStatement().execute("select from msal_logout.token_cache where partition_key = '" + alice.subject()
                    + "' for update");
            SharedTokenCache tokenCache = limited(app.owner);
            assertTimeoutPreemptively(
                    PATIENCE,
                    () -> assertThrows(
                            TokenCacheDatabaseException.class,
                            () -> app.silent(tokenCache.forAccount(alice.subject()), alice, Set.of("api-2"), true)));
            awaitNoWaiter();
            other.rollback();
        }
        assertEquals(1, Fixture.targets(app.contents(alice.subject())).size());
        app.silent(alice, Set.of("api-2"), true);
    }

    @Test
    void whatWasGivenUpLeavesThePoolNoConnectionThatIsCut() throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(Fixture.databaseUrl());
        config.setMaximumPoolSize(1);
        try (HikariDataSource pool = new HikariDataSource(config)) {
            SharedTokenCache tokenCache = SharedTokenCache.builder(pool, Fixture.CLIENT_ID)
                    .timeLimit(Duration.ofMillis(100))
                    .build();
            for (int round = 0; round < 20; round += 1) {
                try (Connection other = app.owner.getConnection()) {
                    other.setAutoCommit(false);
                    other.createStatement().execute("lock table msal_logout.sessions in access exclusive mode");
                    failureOf(tokenCache);
                    other.rollback();
                }
                try (Connection next = pool.getConnection()) {
                    next.createStatement().execute("select 1");
                }
            }
        }
    }

    /** The server has stopped the statement, which is what keeps it from being carried out afterwards. */
    private void awaitNoWaiter() {
        assertTimeoutPreemptively(PATIENCE, () -> {
            while (!app.query("select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%msal_logout.save%'"
                            + " and pid <> pg_backend_pid()")
                    .isEmpty()) {
                Thread.onSpinWait();
            }
        });
    }

    @Test
    void noConnectionIsHeldWhileMsalAsksTheProvider() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        AtomicInteger busy = new AtomicInteger(-1);
        app.endpoint.beforeAnswer = grantType -> busy.set(app.owner.getHikariPoolMXBean().getActiveConnections());
        app.silent(alice, Set.of("api-2"), true);
        assertEquals(0, busy.get());
    }

    @ParameterizedTest
    @ValueSource(strings = {"40001", "40P01", "08006", "57P01"})
    void whatAnotherTryMayMendIsTriedAgain(String state) throws Exception {
        Person alice = Person.someone();
        AtomicInteger statements = new AtomicInteger();
        SharedTokenCache tokenCache = app.build(
                Proxies.beforeEach(app.owner, (method, arguments) -> {
                    if (statements.incrementAndGet() % 2 == 1) {
                        throw new SQLException("as the test wants it", state);
                    }
                    return null;
                }),
                null);
        app.redeem(tokenCache.forLogin(), alice, Fixture.SCOPES);
        app.silent(tokenCache.forAccount(alice.subject()), alice, Set.of("api-2"), true);
        assertEquals(2, Fixture.targets(app.contents(alice.subject())).size());
        assertTrue(tokenCache.isSessionActive(alice.session()));
    }

    @Test
    void whatNoTryMendsEnds() {
        AtomicInteger statements = new AtomicInteger();
        SharedTokenCache tokenCache = app.build(
                Proxies.beforeEach(app.owner, (method, arguments) -> {
                    statements.incrementAndGet();
                    throw new SQLException("as the test wants it", "40001");
                }),
                null);
        failureOf(tokenCache);
        assertEquals(20, statements.get());
    }

    @Test
    void aConnectionThatIsCutBeforeAnyStatementLeavesAWholeRowOrNone() throws Exception {
        for (int point = 1; point <= 6; point += 1) {
            int cutAt = point;
            Person alice = Person.someone();
            AtomicInteger statements = new AtomicInteger();
            SharedTokenCache tokenCache = app.build(
                    Proxies.beforeEach(app.owner, (method, arguments) -> {
                        if (statements.incrementAndGet() == cutAt) {
                            PGConnection connection = ((Connection) arguments[0]).unwrap(PGConnection.class);
                            app.query("select pg_terminate_backend(?)", connection.getBackendPID());
                        }
                        return null;
                    }),
                    Encryption.of("k", java.util.Map.of("k", new byte[32])));
            app.redeem(tokenCache.forLogin(), alice, Fixture.SCOPES);
            app.silent(tokenCache.forAccount(alice.subject()), alice, Set.of("api-2"), true);
            assertEquals(1, app.query("select 1 from msal_logout.token_cache where partition_key = ?", alice.subject()).size());
        }
    }

    @Test
    void aLoadThatFailedIsNeverFollowedByAWrite() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        String before = app.stored(alice.subject());
        AtomicInteger statements = new AtomicInteger();
        SharedTokenCache tokenCache = app.build(
                Proxies.beforeEach(app.owner, (method, arguments) -> {
                    if (statements.incrementAndGet() == 2) {
                        throw new SQLException("as the test wants it", "53300");
                    }
                    return null;
                }),
                null);
        ITokenCacheAccessAspect aspect = tokenCache.forAccount(alice.subject());
        assertThrows(TokenCacheDatabaseException.class, () -> app.silent(aspect, alice, Set.of("api-2"), true));
        assertEquals(2, statements.get());
        assertEquals(before, app.stored(alice.subject()));
    }

    @Test
    void anAspectWhoseLoadFailedMayBeUsedAgain() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        AtomicInteger statements = new AtomicInteger();
        SharedTokenCache tokenCache = app.build(
                Proxies.beforeEach(app.owner, (method, arguments) -> {
                    if (statements.incrementAndGet() == 1) {
                        throw new SQLException("as the test wants it", "53300");
                    }
                    return null;
                }),
                null);
        var application = app.application(tokenCache.forAccount(alice.subject()));
        var parameters = Fixture.silentParameters(alice.subject(), Fixture.SCOPES, false);
        assertThrows(TokenCacheDatabaseException.class, () -> Fixture.get(application.acquireTokenSilently(parameters)));
        assertNotNull(Fixture.get(application.acquireTokenSilently(parameters)).accessToken());
    }

    @Test
    void aDetailThatQuotesARowIsLeftOut() {
        app.execute("create schema if not exists test_detail");
        app.execute("create table if not exists test_detail.t (secret text check (secret <> 'the-token'))");
        Database database = new Database(app.owner, Duration.ofSeconds(5));
        TokenCacheDatabaseException failure = assertThrows(
                TokenCacheDatabaseException.class,
                () -> database.call(
                        (connection, running) -> connection.createStatement().execute("insert into test_detail.t values ('the-token')")));
        for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
            assertFalse(cause.toString().contains("the-token"), cause.toString());
        }
        app.execute("drop schema test_detail cascade");
    }

    @Test
    void anInterruptedThreadStopsWaiting() throws Exception {
        try (ServerSocket silent = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
            SharedTokenCache tokenCache = SharedTokenCache.builder(
                            Fixture.simple("jdbc:postgresql://127.0.0.1:" + silent.getLocalPort() + "/postgres?user=u"), "c")
                    .timeLimit(PATIENCE.multipliedBy(10))
                    .build();
            assertTimeoutPreemptively(PATIENCE, () -> {
                Thread.currentThread().interrupt();
                assertThrows(TokenCacheDatabaseException.class, () -> tokenCache.isSessionActive("i", "s", null));
                assertTrue(Thread.interrupted());
            });
        }
    }
}
