package io.github.msallogout;

import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/** The one row of an account at a partition. Its generation is pinned by the first load or login. */
final class AccountRow {
    static final String TWO_ACCOUNTS = "two accounts in one ConfidentialClientApplication, which would mix their tokens: "
            + "make one for each sign-in, and for each operation of a user";

    /** What every row of a client has in common. */
    record Shared(CacheRows rows, PayloadCodec codec, String clientId, Consumer<String> warn) {
        PayloadCodec.Place place(String partitionKey, long generation) {
            return new PayloadCodec.Place(clientId, partitionKey, Long.toString(generation));
        }

        /** The contents of a payload; empty where it cannot be decoded, which is warned of. */
        Map<String, Object> decode(CacheRows.Row row, PayloadCodec.Place place) {
            PayloadCodec.Decoded decoded = codec.decode(row.payload(), row.encoding(), place);
            Map<String, Object> contents = decoded.text() == null ? null : Json.parseObject(decoded.text());
            if (contents == null && decoded.text() != null) {
                decoded = PayloadCodec.undecodable();
            }
            if (decoded.warning() != null) {
                warn.accept(decoded.warning());
            }
            return contents == null ? Map.of() : contents;
        }
    }

    private static final int MAX_TRIES = 32; // each lost try is another writer's success
    private static final String NO_SID = "an ID token bears no \"sid\": a sign-out by sid cannot find this login. At Entra "
            + "ID add the optional claim \"sid\" to ID tokens (App registration, Token configuration); at other providers "
            + "ask for back-channel logout with the session required";

    private final Shared shared;
    private final String partitionKey;
    private final String homeAccountId;
    private Long pinned;
    /** Whether there was no row once: what comes later belongs to another login. */
    private boolean wasAbsent;
    private long version;

    AccountRow(Shared shared, String partitionKey, String homeAccountId) {
        this.shared = shared;
        this.partitionKey = partitionKey;
        this.homeAccountId = homeAccountId;
    }

    String homeAccountId() {
        return homeAccountId;
    }

    /** The account's own contents; null where the row is gone, or is another login's. */
    Map<String, Object> load() {
        CacheRows.Row row = shared.rows().load(partitionKey);
        if (row == null || wasAbsent || pinned != null && pinned != row.generation()) {
            wasAbsent = true;
            return null;
        }
        pinned = row.generation();
        version = row.version();
        Map<String, Object> contents = shared.decode(row, shared.place(partitionKey, row.generation()));
        // Another program may have put anything there: MSAL is never shown another account's tokens.
        return CacheContents.own(contents, homeAccountId, 0);
    }

    /**
     * The only way in which a row comes to be.
     *
     * @param further the other sessions of the same account
     * @throws SignedOutException where a session was ended at or after its ID token was issued
     */
    void login(Map<String, Object> contents, SessionClaims session, List<SessionClaims> further, String kind) {
        warnOfMissingSid(session);
        Map<String, Object> own = CacheContents.own(contents, homeAccountId, now());
        CacheRows.Login login = new CacheRows.Login(partitionKey, homeAccountId, session, kind);
        if (shared.codec().bindsGeneration()) {
            loginBound(login, own);
        } else {
            keep(shared.rows().login(login, shared.codec().encode(Json.write(own), shared.place(partitionKey, 0))));
        }
        further.forEach(this::addSession);
    }

    /**
     * A login whose payload is encrypted for the row's generation, which a new row has only afterwards. No transaction is
     * open meanwhile; a live row keeps its generation, and is never empty in between.
     */
    private void loginBound(CacheRows.Login login, Map<String, Object> own) {
        CacheRows.Row row = shared.rows().load(partitionKey);
        PayloadCodec.Encoded encoded = row == null
                ? PayloadCodec.NONE
                : shared.codec().encode(Json.write(own), shared.place(partitionKey, row.generation()));
        keep(shared.rows().login(login, encoded));
        if (row == null || row.generation() != pinned) {
            save(Map.of(), own);
        }
    }

    private void keep(CacheRows.Stored stored) {
        if (stored == null) {
            throw new SignedOutException();
        }
        pinned = stored.generation();
        version = stored.version();
    }

    /** Saves MSAL's changes, onto what others have saved meanwhile. */
    void store(OperationAspect.Change change) {
        if (change.base() == null || pinned == null) {
            throw new SignedOutException();
        }
        Map<String, Object> all = change.ours(homeAccountId);
        if (CacheContents.accountsOf(all).stream().anyMatch(id -> !id.equals(homeAccountId))) {
            throw new TokenCacheMisuseException(TWO_ACCOUNTS);
        }
        Map<String, Object> ours = CacheContents.own(all, homeAccountId, 0);
        if (ours.equals(change.base())) {
            return; // what was added is no user's
        }
        List<SessionClaims> known = CacheContents.sessionsOf(change.base(), shared.clientId());
        for (SessionClaims session : CacheContents.sessionsOf(ours, shared.clientId())) {
            if (known.stream().noneMatch(session::isKnownAs)) {
                warnOfMissingSid(session);
                addSession(session);
            }
        }
        save(change.base(), ours);
    }

    private void save(Map<String, Object> base, Map<String, Object> ours) {
        Map<String, Object> theirs = base;
        for (int tries = 0; tries < MAX_TRIES; tries += 1) {
            Map<String, Object> merged = CacheContents.merge(base, ours, theirs);
            String text = Json.write(CacheContents.own(merged, homeAccountId, now()));
            CacheRows.Saved saved = shared.rows()
                    .save(partitionKey, pinned, version, shared.codec().encode(text, shared.place(partitionKey, pinned)));
            switch (saved.outcome()) {
                case SAVED -> {
                    version = saved.version();
                    return;
                }
                case GONE -> throw new SignedOutException();
                case CONFLICT -> {
                    theirs = load();
                    if (theirs == null) {
                        throw new SignedOutException();
                    }
                }
            }
        }
        throw new TokenCacheDatabaseException("other writers changed the row " + MAX_TRIES + " times in a row", null);
    }

    private void addSession(SessionClaims session) {
        if (!shared.rows().addSession(partitionKey, session)) {
            throw new SignedOutException();
        }
    }

    void remove() {
        if (pinned != null) {
            shared.rows().forget(partitionKey, pinned);
        }
    }

    private void warnOfMissingSid(SessionClaims session) {
        if (session.sid() == null) {
            shared.warn().accept(NO_SID);
        }
    }

    private static long now() {
        return System.currentTimeMillis() / 1_000;
    }
}
