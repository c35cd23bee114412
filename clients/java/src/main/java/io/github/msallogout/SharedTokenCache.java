package io.github.msallogout;

import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.microsoft.aad.msal4j.MsalException;
import com.microsoft.aad.msal4j.MsalInteractionRequiredException;
import java.time.Duration;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;
import javax.sql.DataSource;

/**
 * The shared token cache of one app: aspects for MSAL4J whose writes cannot undo a sign-out. One serves the whole app;
 * each aspect serves one {@code ConfidentialClientApplication}, and that one operation of one user:
 *
 * <pre>{@code
 * SharedTokenCache tokenCache = SharedTokenCache.of(dataSource, clientId);
 *
 * ConfidentialClientApplication.builder(clientId, credential)
 *     .authority(authority)
 *     .setTokenCacheAccessAspect(tokenCache.forAccount(homeAccountId))
 *     .build()
 *     .acquireTokenSilently(SilentParameters.builder(scopes, account).build());
 * }</pre>
 *
 * <p>A login or a refresh that lost against a sign-out ends with a {@link SignedOutException}, as the cause of what
 * MSAL4J's future ends with. Its token must not be used.
 */
public final class SharedTokenCache {
    private static final System.Logger LOGGER = System.getLogger(SharedTokenCache.class.getName());
    // Where somebody else chooses what is warned of.
    private static final int MAX_WARNINGS = 100;
    private static final int MAX_CAUSES = 20;
    // A partition of its own: a row of tokens under the same client id stays as it is.
    private static final String REGISTERED = "registered:";

    /**
     * MSAL4J's own code for an empty cache, and what providers answer. OAuth 2.0 §5.2, OpenID Connect Core 1.0 §3.1.2.6.
     */
    private static final Set<String> SIGN_IN_CODES = Set.of(
            "cache_miss",
            "invalid_grant",
            "interaction_required",
            "login_required",
            "consent_required",
            "account_selection_required");

    private final CacheRows rows;
    private final AccountRow.Shared shared;
    private final Database database;
    private final String clientId;
    private final RevocationListener.Settings listening;

    private SharedTokenCache(Builder settings) {
        Set<String> warned = ConcurrentHashMap.newKeySet();
        Consumer<String> warn = message -> {
            if (warned.size() < MAX_WARNINGS && warned.add(message)) {
                settings.onWarning.accept(message);
            }
        };
        clientId = settings.clientId;
        database = new Database(settings.dataSource, settings.timeLimit);
        rows = new CacheRows(database, clientId, settings.timeToLive);
        shared = new AccountRow.Shared(rows, new PayloadCodec(settings.encryption), clientId, warn);
        listening = new RevocationListener.Settings(
                settings.listenDataSource == null
                        ? database
                        : new Database(settings.listenDataSource, settings.timeLimit),
                rows,
                settings.pollInterval,
                settings.onWarning);
    }

    /**
     * A token cache with the usual settings: plain payloads that live 90 days, and 5 seconds for each call.
     *
     * @param dataSource connections to the shared database, with auto-commit on, as the role registered for the client id
     * @param clientId the app's client id
     * @return the token cache
     */
    public static SharedTokenCache of(DataSource dataSource, String clientId) {
        return builder(dataSource, clientId).build();
    }

    /**
     * Begins a token cache with settings of its own.
     *
     * @param dataSource connections to the shared database, with auto-commit on, as the role registered for the client id
     * @param clientId the app's client id
     * @return settings, to be changed and built
     */
    public static Builder builder(DataSource dataSource, String clientId) {
        return new Builder(dataSource, clientId);
    }

    /** Settings of a {@link SharedTokenCache}. */
    public static final class Builder {
        private final DataSource dataSource;
        private final String clientId;
        private Duration timeToLive = Duration.ofDays(90);
        private Duration timeLimit = Duration.ofSeconds(5);
        private Duration pollInterval = Duration.ofSeconds(2);
        private Encryption encryption;
        private DataSource listenDataSource;
        private Consumer<String> onWarning = message -> LOGGER.log(System.Logger.Level.WARNING, message);

        private Builder(DataSource dataSource, String clientId) {
            this.dataSource = require(dataSource, "a DataSource", "pass the app's pool");
            this.clientId = require(clientId, "a client id", "pass the one that MSAL is built with");
            if (clientId.isBlank()) {
                throw new TokenCacheMisuseException("the client id is empty: pass the one that MSAL is built with");
            }
        }

        /**
         * How long a row lives after it was last written.
         *
         * @param duration at least a second; default 90 days, as long as Entra ID's refresh tokens
         * @return these settings
         */
        public Builder timeToLive(Duration duration) {
            timeToLive = atLeast(duration, Duration.ofSeconds(1), "the time to live");
            return this;
        }

        /**
         * The longest that a call of the database may take, waiting for a connection included. After it the statement is
         * cancelled and the connection given up, and the operation ends with a {@link TokenCacheDatabaseException}.
         *
         * @param duration at least 100 milliseconds; default 5 seconds
         * @return these settings
         */
        public Builder timeLimit(Duration duration) {
            timeLimit = atLeast(duration, Duration.ofMillis(100), "the time limit");
            return this;
        }

        /**
         * Encrypts payloads with AES-256-GCM.
         *
         * @param keys default none: payloads are stored as they are
         * @return these settings
         */
        public Builder encryption(Encryption keys) {
            encryption = require(keys, "encryption", "make it by Encryption.of(…), or leave it out");
            return this;
        }

        /**
         * Where {@link SharedTokenCache#onPurge} takes its connection, which it holds. Must reach PostgreSQL itself: LISTEN
         * does not work through PgBouncer in transaction mode, where sign-outs would be heard of half a minute late.
         *
         * @param connections default the token cache's own
         * @return these settings
         */
        public Builder listenDataSource(DataSource connections) {
            listenDataSource = require(connections, "a DataSource", "pass one, or leave it out");
            return this;
        }

        /**
         * How often {@link SharedTokenCache#onPurge} asks where the driver is not PostgreSQL's own, so that it cannot listen.
         *
         * @param duration at least 100 milliseconds; default 2 seconds
         * @return these settings
         */
        public Builder pollInterval(Duration duration) {
            pollInterval = atLeast(duration, Duration.ofMillis(100), "the interval of polling");
            return this;
        }

        /**
         * Hears of what an operator should mend, once for each message; no message has a token in it.
         *
         * @param listener default {@link System.Logger}
         * @return these settings
         */
        public Builder onWarning(Consumer<String> listener) {
            onWarning = require(listener, "a listener for warnings", "pass one, or leave it out");
            return this;
        }

        /**
         * Makes the token cache; the database is not asked, which {@link SharedTokenCache#check} does.
         *
         * @return the token cache
         */
        public SharedTokenCache build() {
            return new SharedTokenCache(this);
        }

        private static Duration atLeast(Duration duration, Duration least, String what) {
            if (duration == null || duration.compareTo(least) < 0) {
                throw new TokenCacheMisuseException(what + " must be at least " + least.toMillis() + " ms");
            }
            return duration;
        }
    }

    /**
     * For the {@code ConfidentialClientApplication} that redeems one code. It is the only one to make a user's row.
     *
     * @return an aspect for {@code setTokenCacheAccessAspect}
     */
    public ITokenCacheAccessAspect forLogin() {
        return new OperationAspect(Sources.login(shared), clientId);
    }

    /**
     * For one operation of a signed-in user: a silent token, the list of accounts, the removal of the account.
     *
     * @param homeAccountId {@code account().homeAccountId()} of the login's result
     * @return an aspect for {@code setTokenCacheAccessAspect}
     * @throws TokenCacheMisuseException where it is null or empty
     */
    public ITokenCacheAccessAspect forAccount(String homeAccountId) {
        requireText(homeAccountId, "a home account id", "keep account().homeAccountId() of the login in the app's session");
        return new OperationAspect(Sources.account(shared, homeAccountId), clientId);
    }

    /**
     * For client credentials. One application may serve them for long: its tokens are no user's.
     *
     * @param partitionKey {@code <client id>.<tenant id>} is a good one
     * @return an aspect for {@code setTokenCacheAccessAspect}
     * @throws TokenCacheMisuseException where it is null or empty
     */
    public ITokenCacheAccessAspect forApp(String partitionKey) {
        requireText(partitionKey, "a partition key", "\"<client id>.<tenant id>\" is a good one");
        return new OperationAspect(Sources.app(shared, partitionKey), clientId);
    }

    /**
     * For one on-behalf-of operation. The row bears the user's account, so that a sign-out deletes it.
     *
     * @param assertion the access token that the app was called with
     * @return an aspect for {@code setTokenCacheAccessAspect}
     * @throws TokenCacheMisuseException where it is null or empty
     */
    public ITokenCacheAccessAspect forAssertion(String assertion) {
        requireText(assertion, "an assertion", "pass the access token that the app was called with");
        return new OperationAspect(Sources.assertion(shared, assertion), clientId);
    }

    /**
     * Whether a session of this app has neither been ended nor expired: by the sid, or by the subject where there is no sid.
     *
     * @param session what the app's own session remembers
     * @return false where the app's own session must end
     * @throws TokenCacheMisuseException where it is null
     * @throws TokenCacheDatabaseException where nobody knows; the request then fails, and is not served as signed in
     */
    public boolean isSessionActive(SignedInSession session) {
        require(session, "a session", "pass what the app's own session remembers");
        return rows.sessionActive(session.issuer(), session.sid(), session.subject());
    }

    /**
     * Whether a session of this app has neither been ended nor expired: by the sid, or by the subject where there is no sid.
     *
     * @param issuer the ID token's {@code iss}
     * @param sid the ID token's {@code sid}, or null
     * @param subject the ID token's {@code sub}; may be null where there is a sid
     * @return false where the app's own session must end
     * @throws TokenCacheMisuseException where sid and subject are both missing
     * @throws TokenCacheDatabaseException where nobody knows; the request then fails, and is not served as signed in
     */
    public boolean isSessionActive(String issuer, String sid, String subject) {
        return isSessionActive(new SignedInSession(issuer, sid, subject));
    }

    /**
     * Hears of this app's sessions that sign-outs end from now on, in order and each once, also after a lost connection: to
     * close WebSockets, or to end sessions in memory. The listener runs on a thread of its own, for one session at a time;
     * what it throws is warned of, and that session is not given again.
     *
     * <p>With PostgreSQL's own driver it listens, and holds one connection; with another it asks every two seconds.
     *
     * @param listener hears of each session
     * @return ends it: when {@code close} returns, the listener runs no more
     * @throws TokenCacheDatabaseException where the database cannot be reached now
     */
    public RevocationSubscription onPurge(Consumer<RevokedSession> listener) {
        return RevocationListener.start(listening, require(listener, "a listener", "pass what ends the app's own session"));
    }

    /**
     * Forgets one account of this app, as its sign-out within the app.
     *
     * @param homeAccountId {@code account().homeAccountId()} of the login's result
     * @return whether there was a row
     * @throws TokenCacheMisuseException where it is null or empty
     * @throws TokenCacheDatabaseException where the database cannot be reached
     */
    public boolean removeAccount(String homeAccountId) {
        requireText(homeAccountId, "a home account id", "keep account().homeAccountId() of the login in the app's session");
        CacheRows.Row row = rows.load(homeAccountId);
        return row != null && rows.forget(homeAccountId, row.generation());
    }

    /**
     * Registers a login of an app that keeps its tokens elsewhere (Spring Security's authorized clients, say), in a row
     * without tokens: {@link #isSessionActive}, {@link #onPurge} and {@link SignOutFilter} then work as for any other.
     *
     * @param idToken the JWT that the issuer has just given, verified or received over TLS
     * @param homeAccountId the account: the ID token's {@code sub}, or {@code <uid>.<utid>} at Entra ID
     * @throws SignedOutException where a sign-out was first: store nothing
     * @throws TokenCacheMisuseException where it is no ID token of this client id
     */
    public void registerLogin(String idToken, String homeAccountId) {
        requireText(homeAccountId, "a home account id", "the ID token's \"sub\" is one, except at Entra ID");
        SessionClaims session = SessionClaims.of(idToken, clientId);
        if (session == null) {
            throw new TokenCacheMisuseException(
                    "this is no ID token for the client id \"" + clientId + "\": pass the one of this login");
        }
        CacheRows.Login login =
                new CacheRows.Login(REGISTERED + homeAccountId, homeAccountId, session, "user");
        if (rows.login(login, PayloadCodec.NONE) == null) {
            throw new SignedOutException();
        }
    }

    /**
     * Whether an account that was registered by {@link #registerLogin} has not been signed out since: to clean up what is
     * kept elsewhere, after a time in which nobody listened.
     *
     * @param homeAccountId as it was registered
     * @return false where its tokens must go
     */
    public boolean isRegistered(String homeAccountId) {
        requireText(homeAccountId, "a home account id", "pass the one of registerLogin");
        return rows.load(REGISTERED + homeAccountId) != null;
    }

    /**
     * Looks at the start whether all of it can work: the database, its schema, the role, the time, MSAL4J. Call it once,
     * before the app serves. A role that may read other apps' tokens is warned of.
     *
     * @throws TokenCacheMisuseException with every problem, and what to do about each
     * @throws TokenCacheDatabaseException where the database cannot be reached
     */
    public void check() {
        SetupCheck.run(database, rows, clientId, shared.warn());
    }

    /**
     * Whether nothing but a new sign-in helps: a login or a refresh that lost against a sign-out, an empty cache, and what
     * providers answer to a refresh token that is no good any more. Looks into causes.
     *
     * @param error what MSAL4J's future ended with; null is none
     * @return true where the app must end its own session and send the user to sign in
     */
    public static boolean isSignInRequired(Throwable error) {
        Throwable cause = error;
        for (int i = 0; cause != null && i < MAX_CAUSES; i += 1) {
            if (cause instanceof SignedOutException
                    || cause instanceof MsalInteractionRequiredException
                    || cause instanceof MsalException msal
                            && msal.errorCode() != null
                            && SIGN_IN_CODES.contains(msal.errorCode())) {
                return true;
            }
            cause = cause.getCause();
        }
        return false;
    }

    private static void requireText(String value, String what, String remedy) {
        if (value == null || value.isEmpty()) {
            throw new TokenCacheMisuseException(what + " is missing: " + remedy);
        }
    }

    static <T> T require(T value, String what, String remedy) {
        if (Objects.isNull(value)) {
            throw new TokenCacheMisuseException(what + " is missing: " + remedy);
        }
        return value;
    }
}
