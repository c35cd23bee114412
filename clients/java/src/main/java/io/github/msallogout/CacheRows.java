package io.github.msallogout;

import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/** The functions of the schema {@code msal_logout} for one client id. Every call is one round trip. */
final class CacheRows {
    /** One row as it was read. */
    record Row(long generation, long version, byte[] payload, String encoding) {}

    record Login(String partitionKey, String homeAccountId, SessionClaims session, String kind) {}

    /** The row of a login that was accepted. */
    record Stored(long generation, long version) {}

    enum Outcome {
        SAVED,
        /** Another writer was first: load, merge, again. */
        CONFLICT,
        /** Purged: give up. */
        GONE
    }

    record Saved(Outcome outcome, long version) {}

    record Revoked(long position, RevokedSession session) {}

    private final Database database;
    private final String clientId;
    private final String ttl;

    CacheRows(Database database, String clientId, Duration ttl) {
        this.database = database;
        this.clientId = clientId;
        this.ttl = ttl.toSeconds() + " seconds";
    }

    /** Null where nothing is stored. */
    Row load(String partitionKey) {
        return query("select generation, version, payload, encoding from msal_logout.load(?, ?)", result ->
                result.next()
                        ? new Row(result.getLong(1), result.getLong(2), result.getBytes(3), result.getString(4))
                        : null, clientId, partitionKey);
    }

    /** Null where the session was ended. */
    Stored login(Login login, PayloadCodec.Encoded encoded) {
        SessionClaims session = login.session();
        return query(
                "select accepted, generation, version from msal_logout.login(?, ?, ?, ?, ?, ?, ?, ?, ?, ?::interval, ?, ?, ?)",
                result -> {
                    result.next();
                    return result.getBoolean(1) ? new Stored(result.getLong(2), result.getLong(3)) : null;
                },
                clientId,
                login.partitionKey(),
                login.homeAccountId(),
                session.issuer(),
                session.sid(),
                session.subject(),
                session.issuedAt(),
                encoded.payload(),
                encoded.encoding(),
                ttl,
                login.kind(),
                session.oid(),
                session.tid());
    }

    Saved save(String partitionKey, long generation, long version, PayloadCodec.Encoded encoded) {
        return query("select outcome, version from msal_logout.save(?, ?, ?, ?, ?, ?, ?::interval)", result -> {
            result.next();
            return switch (result.getString(1)) {
                case "saved" -> new Saved(Outcome.SAVED, result.getLong(2));
                case "conflict" -> new Saved(Outcome.CONFLICT, 0);
                default -> new Saved(Outcome.GONE, 0);
            };
        }, clientId, partitionKey, generation, version, encoded.payload(), encoded.encoding(), ttl);
    }

    /** False where the session was ended, or the row is gone. */
    boolean addSession(String partitionKey, SessionClaims session) {
        return isTrue(
                "select msal_logout.add_session(?, ?, ?, ?, ?, ?, ?, ?)",
                clientId,
                partitionKey,
                session.issuer(),
                session.sid(),
                session.subject(),
                session.issuedAt(),
                session.oid(),
                session.tid());
    }

    boolean forget(String partitionKey, long generation) {
        return isTrue("select msal_logout.forget(?, ?, ?)", clientId, partitionKey, generation);
    }

    void storeApp(String partitionKey, PayloadCodec.Encoded encoded) {
        query(
                "select msal_logout.store_app(?, ?, ?, ?, ?::interval)",
                ResultSet::next,
                clientId,
                partitionKey,
                encoded.payload(),
                encoded.encoding(),
                ttl);
    }

    boolean sessionActive(String issuer, String sid, String subject) {
        return isTrue("select msal_logout.session_active(?, ?, ?, ?)", clientId, issuer, sid, subject);
    }

    /** Sessions revoked after this position, in order; null: the newest alone, where a listener begins. */
    List<Revoked> endedSince(Long after) {
        return query(
                "select position, issuer, sid, subject, home_account_id from msal_logout.ended_since(?, ?::bigint)",
                result -> {
                    List<Revoked> all = new ArrayList<>();
                    while (result.next()) {
                        all.add(new Revoked(
                                result.getLong(1),
                                new RevokedSession(
                                        result.getString(2), result.getString(3), result.getString(4), result.getString(5))));
                    }
                    return all;
                },
                clientId,
                after);
    }

    private interface Reader<T> {
        T read(ResultSet result) throws SQLException;
    }

    private boolean isTrue(String statement, Object... arguments) {
        return query(statement, result -> result.next() && result.getBoolean(1), arguments);
    }

    private <T> T query(String statement, Reader<T> reader, Object... arguments) {
        return database.call((connection, running) -> read(connection, running, statement, reader, arguments));
    }

    private <T> T read(
            Connection connection, Consumer<Statement> running, String text, Reader<T> reader, Object... arguments)
            throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            statement.setQueryTimeout(database.statementSeconds());
            for (int i = 0; i < arguments.length; i += 1) {
                set(statement, i + 1, arguments[i]);
            }
            running.accept(statement);
            try (ResultSet result = statement.executeQuery()) {
                return reader.read(result);
            }
        }
    }

    /** By its own type: what the server would have to guess, it finds no function for. */
    private static void set(PreparedStatement statement, int index, Object argument) throws SQLException {
        if (argument instanceof Long number) {
            statement.setLong(index, number);
        } else if (argument instanceof byte[] bytes) {
            statement.setBytes(index, bytes);
        } else {
            statement.setString(index, requireStorable((String) argument));
        }
    }

    /** The driver would send a question mark for half a surrogate pair: another user's id, perhaps. */
    private static String requireStorable(String text) {
        if (text != null && (text.indexOf(0) >= 0 || !StandardCharsets.UTF_8.newEncoder().canEncode(text))) {
            throw new TokenCacheMisuseException("PostgreSQL cannot store an id with U+0000 or half a surrogate pair in it: see "
                    + "where the id comes from");
        }
        return text;
    }
}
