package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;
import javax.sql.DataSource;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class ListenerTest {
    private static final long PATIENCE_SECONDS = 60;

    private final Fixture app = new Fixture();
    private final BlockingQueue<RevokedSession> heard = new LinkedBlockingQueue<>();

    @AfterEach
    void close() {
        app.close();
    }

    private Person signedIn() throws Exception {
        Person person = Person.someone();
        app.redeem(person);
        return person;
    }

    /** The next session that is one of these; other tests' sign-outs are heard of too. */
    private RevokedSession next(List<Person> of) throws InterruptedException {
        while (true) {
            RevokedSession revoked = heard.poll(PATIENCE_SECONDS, TimeUnit.SECONDS);
            assertNotNull(revoked, "nothing was heard of");
            if (of.stream().anyMatch(person -> person.subject().equals(revoked.subject()))) {
                return revoked;
            }
        }
    }

    private static RevokedSession sessionOf(Person person) {
        return new RevokedSession(person.issuer(), person.sid(), person.subject(), person.homeAccountId());
    }

    @Test
    void sessionsAreHeardOfInOrderAndEachOnce() throws Exception {
        List<Person> people = new ArrayList<>();
        for (int i = 0; i < 5; i += 1) {
            people.add(signedIn());
        }
        app.signOut(signedIn()); // from before the listener began
        try (RevocationSubscription subscription = app.tokenCache.onPurge(heard::add)) {
            assertNotNull(subscription);
            for (Person person : people) {
                app.signOut(person);
            }
            for (Person person : people) {
                assertEquals(sessionOf(person), next(people));
            }
        }
        assertNull(heard.stream().filter(revoked -> revoked.subject().equals(people.get(0).subject())).findFirst().orElse(null));
    }

    @Test
    void aLostConnectionLosesNothing() throws Exception {
        Person before = signedIn();
        Person after = signedIn();
        List<Person> both = List.of(before, after);
        try (RevocationSubscription subscription = app.tokenCache.onPurge(heard::add)) {
            assertNotNull(subscription);
            app.signOut(before);
            assertEquals(sessionOf(before), next(both));
            app.query("select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen msal_logout'");
            app.signOut(after);
            assertEquals(sessionOf(after), next(both));
        }
    }

    @Test
    void aListenerThatFailsIsWarnedOfAndHearsOfTheNextOne() throws Exception {
        Person first = signedIn();
        Person second = signedIn();
        Consumer<RevokedSession> failing = revoked -> {
            heard.add(revoked);
            if (revoked.equals(sessionOf(first))) {
                throw new StackOverflowError("a secret of the app"); // no exception, and no less the app's own
            }
            throw new IllegalStateException("another secret");
        };
        try (RevocationSubscription subscription = app.tokenCache.onPurge(failing)) {
            assertNotNull(subscription);
            app.signOut(first);
            app.signOut(second);
            assertEquals(sessionOf(first), next(List.of(first, second)));
            assertEquals(sessionOf(second), next(List.of(first, second)));
        }
        assertTrue(app.warnings.get(0).endsWith("failed: java.lang.StackOverflowError"), app.warnings.get(0));
        assertTrue(app.warnings.stream().noneMatch(warning -> warning.contains("secret")));
    }

    @Test
    void whatADataSourceThrowsEndsNoListener() throws Exception {
        Person alice = signedIn();
        AtomicBoolean isFailing = new AtomicBoolean();
        CountDownLatch failed = new CountDownLatch(2);
        DataSource failing = Proxies.of(DataSource.class, (method, arguments) -> {
            if (isFailing.get()) {
                failed.countDown();
                throw new IllegalStateException("as the test wants it");
            }
            return method.invoke(app.owner, arguments);
        });
        SharedTokenCache tokenCache = SharedTokenCache.of(failing, Fixture.CLIENT_ID);
        try (RevocationSubscription subscription = tokenCache.onPurge(heard::add)) {
            assertNotNull(subscription);
            isFailing.set(true);
            app.signOut(alice);
            assertTrue(failed.await(30, TimeUnit.SECONDS));
            isFailing.set(false);
            assertEquals(sessionOf(alice), next(List.of(alice)));
        }
    }

    @Test
    void aServerThatGoesSilentBeforeItListensIsGivenUp() {
        CountDownLatch cut = new CountDownLatch(1);
        DataSource silent = Proxies.of(DataSource.class, (method, arguments) ->
                silent((Connection) method.invoke(app.owner, arguments), cut));
        SharedTokenCache tokenCache = SharedTokenCache.builder(app.owner, Fixture.CLIENT_ID)
                .listenDataSource(silent)
                .timeLimit(Duration.ofMillis(500))
                .build();
        String message = assertThrows(TokenCacheDatabaseException.class, () -> tokenCache.onPurge(heard::add))
                .getMessage();
        assertTrue(message.contains("did not answer within 500 ms"), message);
        assertEquals(0, cut.getCount());
        assertEquals(0, app.owner.getHikariPoolMXBean().getActiveConnections());
    }

    /** Waits in each statement until it is cut. */
    private static Connection silent(Connection connection, CountDownLatch cut) {
        return Proxies.of(Connection.class, (method, arguments) -> switch (method.getName()) {
            case "createStatement" -> Proxies.of(Statement.class, (called, values) -> {
                if (called.getName().equals("execute")) {
                    cut.await(PATIENCE_SECONDS, TimeUnit.SECONDS);
                    throw new SQLException("cut", "08006");
                }
                return null;
            });
            case "abort" -> {
                cut.countDown();
                yield method.invoke(connection, arguments);
            }
            default -> method.invoke(connection, arguments);
        });
    }

    @Test
    void withAnotherDriverItAsksNowAndThen() throws Exception {
        Person alice = signedIn();
        SharedTokenCache tokenCache = SharedTokenCache.builder(
                        Proxies.beforeEach(app.owner, (method, arguments) -> null), Fixture.CLIENT_ID)
                .pollInterval(Duration.ofMillis(100))
                .build();
        try (RevocationSubscription subscription = tokenCache.onPurge(heard::add)) {
            assertNotNull(subscription);
            assertEquals(0, listeners());
            app.signOut(alice);
            assertEquals(sessionOf(alice), next(List.of(alice)));
        }
    }

    private int listeners() {
        return app.query("select 1 from pg_stat_activity where query = 'listen msal_logout' and application_name = 'listener-test'")
                .size();
    }

    @Test
    void afterItsEndItRunsNoMoreAndItsConnectionListensNoMore() throws Exception {
        Person alice = signedIn();
        RevocationSubscription subscription = app.tokenCache.onPurge(heard::add);
        assertEquals(1, app.owner.getHikariPoolMXBean().getActiveConnections());
        subscription.close();
        subscription.close();
        assertEquals(0, app.owner.getHikariPoolMXBean().getActiveConnections());
        assertEquals(List.of(), app.query("select pg_listening_channels()"));
        app.signOut(alice);
        assertTrue(heard.stream().noneMatch(revoked -> revoked.subject().equals(alice.subject())));
    }

    @Test
    void aListenerMayEndItself() throws Exception {
        Person alice = signedIn();
        BlockingQueue<RevocationSubscription> own = new LinkedBlockingQueue<>();
        own.add(app.tokenCache.onPurge(revoked -> {
            if (revoked.subject().equals(alice.subject())) {
                try {
                    own.take().close();
                } catch (InterruptedException interrupted) {
                    Thread.currentThread().interrupt();
                }
                heard.add(revoked);
            }
        }));
        app.signOut(alice);
        assertEquals(sessionOf(alice), next(List.of(alice)));
    }
}
