package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.util.List;
import java.util.UUID;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class SetupCheckTest {
    private final Fixture app = new Fixture();

    @AfterEach
    void close() {
        app.close();
    }

    @Test
    void aRegisteredRoleHasNoProblem() {
        String clientId = "client-" + UUID.randomUUID();
        SharedTokenCache.builder(app.role(clientId), clientId).onWarning(app.warnings::add).build().check();
        assertEquals(List.of(), app.warnings);
    }

    @Test
    void aRoleThatMayReadEveryTokenIsWarnedOf() {
        app.tokenCache.check();
        assertTrue(app.warnings.get(0).contains("give this app a role of its own"), app.warnings.toString());
    }

    @Test
    void aDatabaseWithoutTheSchema() {
        String name = "empty_" + UUID.randomUUID().toString().replace("-", "");
        app.execute("create database " + name);
        try {
            String url = Fixture.databaseUrl().replaceFirst("/[^/?]*\\?", "/" + name + "?");
            assertSays("Run \"msal-logout migrate\"", SharedTokenCache.of(Fixture.simple(url), "client-a"));
        } finally {
            app.execute("drop database " + name + " with (force)");
        }
    }

    @Test
    void aSchemaThatIsOlderThanTheClient() {
        String function = "msal_logout.add_session(text, text, text, text, text, bigint, text, text)";
        app.execute("alter function " + function + " rename to add_session_of_tomorrow");
        try {
            assertSays("older than this client, and lacks add_session(", app.tokenCache);
        } finally {
            app.execute("alter function " + function.replace("add_session(", "add_session_of_tomorrow(") + " rename to add_session");
        }
    }

    @Test
    void everyProblemIsSaidAtOnce() {
        String clientId = "client-" + UUID.randomUUID();
        app.query("select msal_logout.register_app(?, ?)", clientId, app.role().getUser());
        HikariConfig config = new HikariConfig();
        config.setDataSource(app.role("client-" + UUID.randomUUID()));
        config.setTransactionIsolation("TRANSACTION_SERIALIZABLE");
        try (HikariDataSource pool = new HikariDataSource(config)) {
            String message = assertSays("2 problems of the token cache", SharedTokenCache.of(pool, clientId));
            assertTrue(message.contains("transactions are \"serializable\""), message);
            assertTrue(message.contains("select msal_logout.register_app('" + clientId + "'"), message);
        }
    }

    private static String assertSays(String expected, SharedTokenCache tokenCache) {
        String message = assertThrows(TokenCacheMisuseException.class, tokenCache::check).getMessage();
        assertTrue(message.contains(expected), message);
        return message;
    }

    @Test
    void versionsAreComparedByTheirNumbers() {
        int[] least = {1, 19};
        assertTrue(SetupCheck.isOlder("1.9.4", least));
        assertTrue(SetupCheck.isOlder("1.18.0-beta", least));
        assertTrue(SetupCheck.isOlder("0.99.1", least));
        assertFalse(SetupCheck.isOlder("1.19.0", least));
        assertFalse(SetupCheck.isOlder("1.30.0-beta", least));
        assertFalse(SetupCheck.isOlder("2.0", least));
    }
}
