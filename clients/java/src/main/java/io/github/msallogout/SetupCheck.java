package io.github.msallogout;

import com.microsoft.aad.msal4j.ITokenCache;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/** What can be known at the start of what will not work. */
final class SetupCheck {
    private static final int LEAST_SERVER = 140_000;
    private static final int[] LEAST_MSAL = {1, 19};
    // `login` rejects what was issued more than ten minutes ahead of the database's clock.
    private static final Duration MAX_CLOCK_DIFFERENCE = Duration.ofMinutes(5);
    private static final String PROBE = "msal-logout-check";
    private static final List<String> FUNCTIONS = List.of(
            "login(text,text,text,text,text,text,bigint,bytea,text,interval,text,text,text)",
            "load(text,text)",
            "save(text,text,bigint,bigint,bytea,text,interval)",
            "add_session(text,text,text,text,text,bigint,text,text)",
            "forget(text,text,bigint)",
            "session_active(text,text,text,text)",
            "ended_since(text,bigint)",
            "store_app(text,text,bytea,text,interval)");

    private SetupCheck() {}

    private record Server(
            int version, String encoding, boolean isReplica, String isolation, String role, Instant now) {}

    static void run(Database database, CacheRows rows, String clientId, Consumer<String> warn) {
        Server server = database.call(SetupCheck::ask);
        List<String> problems = new ArrayList<>(problemsOf(server));
        boolean isUsable = tryRows(rows, clientId, server.role(), problems);
        if (isUsable) {
            List<String> missing = database.call(SetupCheck::missingFunctions);
            if (!missing.isEmpty()) {
                problems.add("the schema msal_logout is older than this client, and lacks " + String.join(", ", missing)
                        + ": run \"msal-logout migrate\"");
            }
        }
        if (isUsable && database.call(SetupCheck::canReadTable)) {
            // It works, and is how one begins on a machine of one's own.
            warn.accept("the role \"" + server.role() + "\" owns the schema msal_logout or is a superuser, and can read every app's "
                    + "tokens: give this app a role of its own, and register that");
        }
        String msal = ITokenCache.class.getPackage().getImplementationVersion();
        if (msal != null && isOlder(msal, LEAST_MSAL)) {
            problems.add("MSAL4J " + msal + " was not tried: update com.microsoft.azure:msal4j to 1.19 or later");
        }
        if (!problems.isEmpty()) {
            throw new TokenCacheMisuseException(
                    problems.size() == 1
                            ? problems.get(0)
                            : problems.size() + " problems of the token cache: " + String.join("; ", problems));
        }
    }

    private static List<String> problemsOf(Server server) {
        List<String> problems = new ArrayList<>();
        if (server.version() < LEAST_SERVER) {
            problems.add("PostgreSQL " + server.version() / 10_000 + " is too old: use 14 or later");
        }
        if (!server.encoding().equals("UTF8")) {
            problems.add("the database is in " + server.encoding() + ": make one with the encoding UTF8");
        }
        if (server.isReplica()) {
            problems.add("this database is a replica, which lags behind and cannot be written: let the DataSource go to the primary");
        }
        if (!server.isolation().equals("read committed")) {
            problems.add("transactions are \"" + server.isolation() + "\": a login would not see the sign-out that it waited for. Set "
                    + "the pool's isolation to read committed, or: alter role \"" + server.role()
                    + "\" set default_transaction_isolation = 'read committed'");
        }
        Duration difference = Duration.between(server.now(), Instant.now()).abs();
        if (difference.compareTo(MAX_CLOCK_DIFFERENCE) > 0) {
            problems.add("this machine's clock and the database's differ by " + difference.toSeconds()
                    + " s: keep both by NTP, or logins are rejected");
        }
        return problems;
    }

    private static Server ask(Connection connection, Consumer<Statement> running) throws SQLException {
        String text = "select current_setting('server_version_num')::int, "
                + "(select pg_encoding_to_char(encoding) from pg_database where datname = current_database()), "
                + "pg_is_in_recovery(), current_setting('transaction_isolation'), current_user::text, "
                + "extract(epoch from clock_timestamp())::float8";
        try (PreparedStatement statement = connection.prepareStatement(text);
                ResultSet result = statement.executeQuery()) {
            result.next();
            return new Server(
                    result.getInt(1),
                    result.getString(2),
                    result.getBoolean(3),
                    result.getString(4),
                    result.getString(5),
                    Instant.ofEpochMilli((long) (result.getDouble(6) * 1_000)));
        }
    }

    /** Reads as the app will: that shows at once whether the functions are there, and for this role and client id. */
    private static boolean tryRows(CacheRows rows, String clientId, String role, List<String> problems) {
        try {
            rows.load(PROBE);
            rows.sessionActive(PROBE, PROBE, PROBE);
            rows.endedSince(null);
            return true;
        } catch (TokenCacheMisuseException misuse) {
            String state = misuse.getCause() instanceof SQLException sql ? sql.getSQLState() : "";
            problems.add(
                    "42501".equals(state)
                            ? "the role \"" + role + "\" is not registered for the client id \"" + clientId
                                    + "\". As the schema's owner: select msal_logout.register_app('" + clientId.replace("'", "''") + "', '"
                                    + role.replace("'", "''") + "')"
                            : misuse.getMessage());
            return false;
        }
    }

    private static List<String> missingFunctions(Connection connection, Consumer<Statement> running) throws SQLException {
        List<String> missing = new ArrayList<>();
        try (PreparedStatement statement = connection.prepareStatement(
                "select f from unnest(string_to_array(?, ' ')) f where to_regprocedure('msal_logout.' || f) is null")) {
            statement.setString(1, String.join(" ", FUNCTIONS));
            try (ResultSet result = statement.executeQuery()) {
                while (result.next()) {
                    missing.add(result.getString(1));
                }
            }
        }
        return missing;
    }

    private static boolean canReadTable(Connection connection, Consumer<Statement> running) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(
                        "select has_table_privilege('msal_logout.token_cache', 'select')");
                ResultSet result = statement.executeQuery()) {
            return result.next() && result.getBoolean(1);
        }
    }

    static boolean isOlder(String version, int[] least) {
        String[] parts = version.split("[.-]");
        for (int i = 0; i < least.length; i += 1) {
            int part = i < parts.length && parts[i].matches("[0-9]{1,6}") ? Integer.parseInt(parts[i]) : 0;
            if (part != least[i]) {
                return part < least[i];
            }
        }
        return false;
    }
}
