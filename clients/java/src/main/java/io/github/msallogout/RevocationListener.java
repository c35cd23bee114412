package io.github.msallogout;

import java.sql.Connection;
import java.sql.SQLException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * One thread that hears of revoked sessions. A notification says only that there is something to read; what, is read by
 * position, so that a lost connection loses nothing.
 */
final class RevocationListener implements RevocationSubscription, Runnable {
    record Settings(Database database, CacheRows rows, Duration pollInterval, Consumer<String> warn) {}

    // A pooler in transaction mode swallows LISTEN without a word.
    private static final long READ_EVERY_MS = 30_000;
    // How long `close` may have to wait for the driver.
    private static final int WAIT_MS = 250;
    private static final long MIN_BACK_OFF_MS = 50;
    private static final long MAX_BACK_OFF_MS = 5_000;
    private static final long CLOSE_WITHIN_SECONDS = 5;

    private final Settings settings;
    private final Consumer<RevokedSession> listener;
    private final Semaphore stop = new Semaphore(0);
    private final CountDownLatch ended = new CountDownLatch(1);
    private volatile boolean isStopped;
    private volatile Thread thread;
    private Connection connection; // of `thread`; null while there is none
    private long position;
    private long backOffMs = MIN_BACK_OFF_MS;

    private RevocationListener(Settings settings, Consumer<RevokedSession> listener) {
        this.settings = settings;
        this.listener = listener;
    }

    static RevocationSubscription start(Settings settings, Consumer<RevokedSession> listener) {
        RevocationListener started = new RevocationListener(settings, listener);
        // First listen, then take the position: what is ended in between is heard of.
        try {
            started.connect();
        } catch (SQLException failure) {
            throw Database.translate(failure);
        }
        try {
            List<CacheRows.Revoked> newest = settings.rows().endedSince(null);
            started.position = newest.isEmpty() ? 0 : newest.get(newest.size() - 1).position();
        } catch (TokenCacheException failure) {
            started.drop(false);
            throw failure;
        }
        started.thread = Database.daemons("msal-logout-listener-").newThread(started);
        started.thread.start();
        return started;
    }

    @Override
    public void close() {
        isStopped = true;
        stop.release();
        if (Thread.currentThread() == thread) {
            return;
        }
        try {
            if (!ended.await(CLOSE_WITHIN_SECONDS, TimeUnit.SECONDS)) {
                settings.warn().accept("a listener of revoked sessions still runs after " + CLOSE_WITHIN_SECONDS + " s");
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    @Override
    public void run() {
        try {
            while (!isStopped) {
                try {
                    readAll();
                    backOffMs = MIN_BACK_OFF_MS;
                    await();
                } catch (SQLException | RuntimeException failure) { // a DataSource may throw any
                    reconnect();
                }
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        } finally {
            drop(true);
            ended.countDown();
        }
    }

    private void readAll() {
        for (CacheRows.Revoked revoked : settings.rows().endedSince(position)) {
            if (isStopped) {
                return;
            }
            position = revoked.position();
            try {
                listener.accept(revoked.session());
            } catch (Throwable failure) { // an Error too: the next session must be heard of
                // Its message is the app's, and may have anything in it.
                settings.warn().accept("a listener of revoked sessions failed: " + failure.getClass().getName());
            }
        }
    }

    /** Until there may be something to read. */
    private void await() throws SQLException, InterruptedException {
        if (connection == null) {
            stop.tryAcquire(settings.pollInterval().toMillis(), TimeUnit.MILLISECONDS);
            return;
        }
        long until = System.nanoTime() + READ_EVERY_MS * 1_000_000;
        while (!isStopped && System.nanoTime() < until) {
            if (PgDriver.await(connection, WAIT_MS)) {
                return;
            }
        }
        // A network that went silently looks like one on which nothing happens.
        if (!isStopped && !connection.isValid(settings.database().statementSeconds())) {
            throw new SQLException("the connection that listened is lost");
        }
    }

    private void reconnect() throws InterruptedException {
        drop(false);
        if (!stop.tryAcquire(backOffMs, TimeUnit.MILLISECONDS)) {
            backOffMs = Math.min(backOffMs * 2, MAX_BACK_OFF_MS);
            try {
                connect();
            } catch (SQLException | RuntimeException failure) {
                drop(false); // after a longer wait once more
            }
        }
    }

    private void connect() throws SQLException {
        if (!Database.isPgDriverPresent()) {
            return;
        }
        Connection fresh = settings.database().open();
        if (!PgDriver.isSupportedBy(fresh)) {
            Database.closeQuietly(fresh);
            return;
        }
        connection = fresh;
        if (!fresh.getAutoCommit()) {
            drop(false);
            throw new TokenCacheMisuseException("the DataSource that listens gives connections in a transaction (auto-commit is "
                    + "off), where no notification arrives: give onPurge one with auto-commit on, by listenDataSource");
        }
        try {
            settings.database().execute(fresh, "listen msal_logout");
        } catch (SQLException | TokenCacheException failure) {
            drop(false);
            throw failure;
        }
    }

    /** A connection that goes back to a pool must not go on listening. */
    private void drop(boolean isWell) {
        Connection dropped = connection;
        connection = null;
        if (dropped == null) {
            return;
        }
        try {
            if (isWell) {
                settings.database().execute(dropped, "unlisten *");
                Database.closeQuietly(dropped);
                return;
            }
        } catch (SQLException | TokenCacheException lost) {
            // then its session may still listen
        }
        Database.discard(dropped);
    }
}
