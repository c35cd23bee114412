package io.github.msallogout;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Base64;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Where the tokens of the four kinds of operations are. */
final class Sources {
    private Sources() {}

    /** For the application that redeems the code: reads nothing before, and is the only one to make a user's row. */
    static OperationAspect.Source login(AccountRow.Shared shared) {
        return new RowSource() {
            @Override
            public Map<String, Object> load() {
                return row == null ? null : row.load();
            }

            @Override
            AccountRow login(OperationAspect.Change change) {
                String homeAccountId = onlyAccount(change.after());
                Map<String, Object> ours = change.ours(homeAccountId);
                List<SessionClaims> sessions = sessionsOf(ours, homeAccountId, shared.clientId());
                AccountRow fresh = new AccountRow(shared, homeAccountId, homeAccountId);
                fresh.login(ours, sessions.get(0), sessions.subList(1, sessions.size()), "user");
                return fresh;
            }
        };
    }

    /** For one operation of a user who is signed in: never makes a row. */
    static OperationAspect.Source account(AccountRow.Shared shared, String homeAccountId) {
        return new RowSource(new AccountRow(shared, homeAccountId, homeAccountId)) {
            @Override
            public Map<String, Object> load() {
                return row.load();
            }

            @Override
            AccountRow login(OperationAspect.Change change) {
                throw new SignedOutException();
            }
        };
    }

    /** For one on-behalf-of operation: a row by assertion, which bears the user's account, so that a sign-out finds it. */
    static OperationAspect.Source assertion(AccountRow.Shared shared, String assertion) {
        String partitionKey = partitionOf(assertion);
        return new RowSource() {
            @Override
            public Map<String, Object> load() {
                if (row == null) {
                    CacheRows.Row stored = shared.rows().load(partitionKey);
                    Set<String> accounts = stored == null
                            ? Set.of()
                            : CacheContents.accountsOf(
                                    shared.decode(stored, shared.place(partitionKey, stored.generation())));
                    if (accounts.isEmpty()) {
                        return null;
                    }
                    row = new AccountRow(shared, partitionKey, accounts.iterator().next());
                }
                return row.load();
            }

            @Override
            AccountRow login(OperationAspect.Change change) {
                String homeAccountId = onlyAccount(change.after());
                Map<String, Object> ours = change.ours(homeAccountId);
                SessionClaims session = sessionsOf(ours, homeAccountId, shared.clientId()).get(0);
                AccountRow fresh = new AccountRow(shared, partitionKey, homeAccountId);
                fresh.login(ours, asOldAs(assertion, session), List.of(), "obo");
                return fresh;
            }

            @Override
            public String boundAccount() {
                return null; // MSAL4J names no account here
            }
        };
    }

    /** For client credentials: no account, and the last writer wins. */
    static OperationAspect.Source app(AccountRow.Shared shared, String partitionKey) {
        // An app's row has no generation of its own to bind: it is never another user's.
        PayloadCodec.Place place = new PayloadCodec.Place(shared.clientId(), partitionKey, "app");
        return new OperationAspect.Source() {
            @Override
            public Map<String, Object> load() {
                CacheRows.Row row = shared.rows().load(partitionKey);
                // Never null: tokens of an app that have gone were no user's.
                return row == null ? Map.of() : shared.decode(row, place);
            }

            @Override
            public void store(OperationAspect.Change change) {
                Map<String, Object> ours = change.ours(null);
                if (!CacheContents.accountsOf(ours).isEmpty()) {
                    throw new TokenCacheMisuseException(
                            "forApp is for client credentials: use forLogin or forAccount for a user");
                }
                String text = Json.write(CacheContents.live(ours, System.currentTimeMillis() / 1_000));
                shared.rows().storeApp(partitionKey, shared.codec().encode(text, place));
            }

            @Override
            public void remove() {}

            @Override
            public String boundAccount() {
                return null;
            }
        };
    }

    /** base64url, without padding, of SHA-256 of the assertion. */
    static String partitionOf(String assertion) {
        try {
            byte[] hash = MessageDigest.getInstance("SHA-256").digest(assertion.getBytes(StandardCharsets.UTF_8));
            return Base64.getUrlEncoder().withoutPadding().encodeToString(hash);
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException("this Java has no SHA-256", impossible);
        }
    }

    private abstract static class RowSource implements OperationAspect.Source {
        AccountRow row; // null until there is one

        RowSource() {
            this(null);
        }

        RowSource(AccountRow row) {
            this.row = row;
        }

        /** Makes the row. */
        abstract AccountRow login(OperationAspect.Change change);

        @Override
        public void store(OperationAspect.Change change) {
            if (row == null) {
                row = login(change);
            } else {
                row.store(change);
            }
        }

        @Override
        public void remove() {
            if (row != null) {
                row.remove();
            }
        }

        @Override
        public String boundAccount() {
            return row == null ? null : row.homeAccountId();
        }
    }

    private static String onlyAccount(Map<String, Object> contents) {
        Set<String> accounts = CacheContents.accountsOf(contents);
        if (accounts.isEmpty()) {
            throw new TokenCacheMisuseException("MSAL4J has stored tokens without an account: ask for the scope \"openid\"; with "
                    + "a provider that is not Microsoft's use OpenIdProvider; for client credentials use forApp");
        }
        if (accounts.size() > 1) {
            throw new TokenCacheMisuseException(AccountRow.TWO_ACCOUNTS);
        }
        return accounts.iterator().next();
    }

    /** At least one, the newest first. */
    private static List<SessionClaims> sessionsOf(Map<String, Object> contents, String homeAccountId, String clientId) {
        List<SessionClaims> sessions = CacheContents.sessionsOf(CacheContents.own(contents, homeAccountId, 0), clientId);
        sessions.sort(Comparator.comparingLong(SessionClaims::issuedAt).reversed());
        for (int i = sessions.size() - 1; i > 0; i -= 1) {
            if (sessions.subList(0, i).stream().anyMatch(sessions.get(i)::isSameAs)) {
                sessions.remove(i);
            }
        }
        if (sessions.isEmpty()) {
            throw new TokenCacheMisuseException("there is no ID token for the client id \"" + clientId + "\": ask for the scope "
                    + "\"openid\", and make the token cache for MSAL's client id");
        }
        return sessions;
    }

    /** Of an on-behalf-of login: as old as the assertion, so that a sign-out since then rejects it. */
    private static SessionClaims asOldAs(String assertion, SessionClaims session) {
        Map<String, Object> claims = SessionClaims.decode(assertion);
        SessionClaims asserted = claims == null ? null : SessionClaims.of(claims);
        return asserted == null
                ? session
                : new SessionClaims(
                        session.issuer(),
                        session.sid() == null ? asserted.sid() : session.sid(),
                        session.subject(),
                        Math.min(session.issuedAt(), asserted.issuedAt()),
                        session.oid(),
                        session.tid());
    }
}
