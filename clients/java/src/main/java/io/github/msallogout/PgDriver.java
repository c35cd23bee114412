package io.github.msallogout;

import java.sql.Connection;
import java.sql.SQLException;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PSQLException;

/** What PostgreSQL's own driver can do beyond JDBC; only to be touched where it is there. */
final class PgDriver {
    private PgDriver() {}

    static boolean isSupportedBy(Connection connection) throws SQLException {
        return connection.isWrapperFor(PGConnection.class);
    }

    /** Whether a notification came within the time. */
    static boolean await(Connection connection, int timeoutMs) throws SQLException {
        PGNotification[] notifications = connection.unwrap(PGConnection.class).getNotifications(timeoutMs);
        return notifications != null && notifications.length > 0;
    }

    /** What the server says is to be done, or null. */
    static String hintOf(SQLException failure) {
        return failure instanceof PSQLException pg && pg.getServerErrorMessage() != null
                ? pg.getServerErrorMessage().getHint()
                : null;
    }
}
