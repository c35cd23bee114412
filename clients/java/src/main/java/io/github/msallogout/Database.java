package io.github.msallogout;

import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.FutureTask;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import javax.sql.DataSource;

/**
 * Calls of the database, each of one statement that commits by itself, within one time limit for the connection and the
 * answer. A call runs on a thread of its own: it can be given up at any point, and is never part of a
 * transaction that the app's thread has open.
 */
final class Database {
    /** What is done with a connection. It must be fit to be done twice, and names each statement before it is executed. */
    interface Work<T> {
        T run(Connection connection, Consumer<Statement> running) throws SQLException;
    }

    private static final int MAX_TRIES = 20; // stale connections of a pool, one after the other
    // how long a statement that was cancelled has to end by itself, before its connection is cut
    private static final Duration GRACE = Duration.ofSeconds(1);
    // serialization_failure, deadlock_detected: the other one was first
    private static final Set<String> LOST_RACES = Set.of("40001", "40P01");
    // admin_shutdown, crash_shutdown, cannot_connect_now; with class 08 the ways in which a connection ends
    private static final Set<String> LOST_CONNECTIONS = Set.of("57P01", "57P02", "57P03");

    private final DataSource dataSource;
    private final Duration limit;
    private final Executor threads;

    Database(DataSource dataSource, Duration limit) {
        this.dataSource = dataSource;
        this.limit = limit;
        ThreadPoolExecutor pool = new ThreadPoolExecutor(
                0, Integer.MAX_VALUE, 10, TimeUnit.SECONDS, new SynchronousQueue<>(), daemons("msal-logout-call-"));
        this.threads = pool; // as many as there are calls under way, and none while there are none
    }

    /** Threads that keep no process alive. */
    static ThreadFactory daemons(String prefix) {
        AtomicInteger count = new AtomicInteger();
        return work -> {
            Thread thread = new Thread(work, prefix + count.incrementAndGet());
            thread.setDaemon(true);
            return thread;
        };
    }

    /** Seconds after which the driver has the server cancel a statement: before the call is given up. */
    int statementSeconds() {
        return (int) Math.max(1, limit.toMillis() * 8 / 10_000);
    }

    /**
     * @throws TokenCacheMisuseException for a mistake in the set-up, or an argument that the database rejects
     * @throws TokenCacheDatabaseException where it cannot be reached, fails, or takes too long
     */
    <T> T call(Work<T> work) {
        try {
            return tryCall(work);
        } catch (SQLException failure) {
            throw translate(failure);
        }
    }

    /** As {@link #call}, with the driver's own error. */
    <T> T tryCall(Work<T> work) throws SQLException {
        Call<T> call = new Call<>(work);
        FutureTask<T> task = new FutureTask<>(call::run);
        threads.execute(task);
        try {
            return task.get(limit.toMillis(), TimeUnit.MILLISECONDS);
        } catch (TimeoutException late) {
            call.giveUp();
            throw new TokenCacheDatabaseException(
                    "the database did not answer within " + limit.toMillis()
                            + " ms, waiting for a connection included: look at the pool's size, at locks, and at the network",
                    late);
        } catch (InterruptedException interrupted) {
            call.giveUp();
            Thread.currentThread().interrupt();
            throw new TokenCacheDatabaseException("interrupted while waiting for the database", interrupted);
        } catch (ExecutionException failure) {
            Throwable cause = failure.getCause();
            if (cause instanceof SQLException sql) {
                throw sql;
            }
            if (cause instanceof RuntimeException unchecked) {
                throw unchecked;
            }
            throw new TokenCacheDatabaseException("the DataSource failed", cause);
        }
    }

    /** A connection to be held, and closed by who asked for it. */
    Connection open() throws SQLException {
        FutureTask<Connection> opening = new FutureTask<>(dataSource::getConnection);
        return await(opening, "gave no connection", () -> threads.execute(() -> closeWhenOpen(opening)));
    }

    /** A statement on a connection that is held; where it does not end in time the connection is cut. */
    void execute(Connection held, String text) throws SQLException {
        FutureTask<Boolean> executing = new FutureTask<>(() -> {
            try (Statement statement = held.createStatement()) {
                return statement.execute(text);
            }
        });
        await(executing, "did not answer", () -> abort(held));
    }

    private <T> T await(FutureTask<T> task, String what, Runnable giveUp) throws SQLException {
        threads.execute(task);
        try {
            return task.get(limit.toMillis(), TimeUnit.MILLISECONDS);
        } catch (TimeoutException | InterruptedException late) {
            giveUp.run();
            if (late instanceof InterruptedException) {
                Thread.currentThread().interrupt();
            }
            throw new TokenCacheDatabaseException("the database " + what + " within " + limit.toMillis() + " ms", late);
        } catch (ExecutionException failure) {
            throw failure.getCause() instanceof SQLException sql ? sql : new SQLException(failure.getCause());
        }
    }

    private static void closeWhenOpen(FutureTask<Connection> opening) {
        try {
            closeQuietly(opening.get());
        } catch (ExecutionException | InterruptedException none) {
            // there is nothing to close
        }
    }

    private final class Call<T> {
        private final Work<T> work;
        private Connection current; // guarded by this
        private Statement running; // guarded by this
        private boolean isGivenUp; // guarded by this
        private boolean isCut; // guarded by this

        Call(Work<T> work) {
            this.work = work;
        }

        T run() throws SQLException {
            for (int tries = 1; ; tries += 1) {
                Connection connection = dataSource.getConnection();
                boolean isOurs = take(connection);
                try {
                    if (!isOurs) {
                        return null; // nobody waits any more
                    }
                    requireAutoCommit(connection);
                    return work.run(connection, this::begin);
                } catch (SQLException failure) {
                    if (tries == MAX_TRIES || !isWorthAnotherTry(failure) || isGivenUp()) {
                        throw failure;
                    }
                } finally {
                    release(connection);
                }
            }
        }

        private synchronized void begin(Statement statement) {
            running = statement;
        }

        private synchronized boolean take(Connection connection) {
            current = connection;
            return !isGivenUp;
        }

        private void release(Connection connection) {
            boolean wasCut;
            synchronized (this) {
                current = null;
                running = null;
                wasCut = isCut;
                notifyAll();
            }
            if (wasCut) {
                discard(connection);
            } else {
                closeQuietly(connection);
            }
        }

        private synchronized boolean isGivenUp() {
            return isGivenUp;
        }

        /**
         * The server stops, so that nothing is stored after the app heard that it failed; a connection on which it does not
         * stop soon is cut, since waiting for it would hold a thread, and the pool's place, for as long.
         */
        synchronized void giveUp() {
            isGivenUp = true;
            Connection connection = current;
            Statement statement = running;
            if (statement != null) {
                threads.execute(() -> cancel(statement));
            }
            if (connection != null) {
                threads.execute(() -> cut(connection));
            }
        }

        private synchronized void cut(Connection connection) {
            long end = System.nanoTime() + GRACE.toNanos();
            try {
                // what was released meanwhile may be another's already
                for (long left = GRACE.toMillis(); current == connection && left > 0; ) {
                    wait(left);
                    left = (end - System.nanoTime()) / 1_000_000;
                }
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
            if (current == connection) {
                isCut = true;
                abort(connection);
            }
        }
    }

    private static void cancel(Statement statement) {
        try {
            statement.cancel();
        } catch (SQLException gone) {
            // then it is over
        }
    }

    /**
     * Cuts a connection, and gives it back so that its pool replaces it: a pool looks at the errors of what it lent, and one
     * that was cut between two statements has had none.
     */
    static void discard(Connection connection) {
        abort(connection);
        try (Statement failing = connection.createStatement()) {
            failing.execute("select 1");
        } catch (SQLException seen) {
            // by the pool
        }
        closeQuietly(connection);
    }

    private static void abort(Connection connection) {
        try {
            connection.abort(Runnable::run);
        } catch (SQLException | UnsupportedOperationException cannot) {
            // it ends with the driver's own limits
        }
    }

    static void closeQuietly(AutoCloseable resource) {
        try {
            if (resource != null) {
                resource.close();
            }
        } catch (Exception lost) {
            // nothing is left to be done with it
        }
    }

    private static void requireAutoCommit(Connection connection) throws SQLException {
        if (!connection.getAutoCommit()) {
            throw new TokenCacheMisuseException("the DataSource gives connections in a transaction (auto-commit is off): "
                    + "a login would hold locks that sign-outs wait for, and go with a rollback. Give the token cache a "
                    + "DataSource of its own with auto-commit on");
        }
    }

    private static boolean isWorthAnotherTry(SQLException failure) {
        String state = String.valueOf(failure.getSQLState());
        return LOST_RACES.contains(state) || LOST_CONNECTIONS.contains(state) || state.startsWith("08");
    }

    /** A driver's error as what it means for the app; without its detail, which may quote a row. */
    static TokenCacheException translate(SQLException failure) {
        String state = String.valueOf(failure.getSQLState());
        String text = firstLine(failure.getMessage());
        SQLException cause = withoutDetail(failure);
        return switch (state) {
            // invalid_parameter_value: the functions name the argument and say what is wanted
            case "22023" -> misuse(failure, "correct the argument that it names");
            case "ML001" ->
                misuse(failure, "a partition is one account's: use the account's own id, and another key for an app's row");
            case "ML002" ->
                misuse(failure, "two users have one account id. At Azure AD B2C put the object id into the policy's tokens");
            case "42501" ->
                misuse(failure, "as the schema's owner: select msal_logout.register_app('<client id>', '<role>')");
            case "25006" -> misuse(failure, "let the DataSource go to the primary, and its connections write");
            case "3F000", "42883", "42P01" ->
                new TokenCacheMisuseException( // the server's own hint, of type casts, would mislead
                        text + ": this database lacks the schema msal_logout, or has an older one. Run \"msal-logout migrate\"",
                        cause);
            case "57014" ->
                new TokenCacheDatabaseException("the database did not answer in time, and the statement was cancelled", cause);
            default -> new TokenCacheDatabaseException("the database failed (SQLSTATE " + state + "): " + text, cause);
        };
    }

    /** With what the server says is to be done; else with what is most likely. */
    private static TokenCacheMisuseException misuse(SQLException failure, String advice) {
        String hint = isPgDriverPresent() ? PgDriver.hintOf(failure) : null;
        return new TokenCacheMisuseException(
                firstLine(failure.getMessage()) + ": " + (hint == null ? advice : hint), withoutDetail(failure));
    }

    /** PostgreSQL's own driver, which need not be there. */
    static boolean isPgDriverPresent() {
        try {
            Class.forName("org.postgresql.PGConnection", false, Database.class.getClassLoader());
            return true;
        } catch (ClassNotFoundException absent) {
            return false;
        }
    }

    private static SQLException withoutDetail(SQLException failure) {
        SQLException bare = new SQLException(firstLine(failure.getMessage()), failure.getSQLState());
        bare.setStackTrace(failure.getStackTrace());
        return bare;
    }

    // pgjdbc puts the detail onto lines of its own.
    private static String firstLine(String message) {
        return message == null ? "" : message.lines().findFirst().orElse("");
    }
}
