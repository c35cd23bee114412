package io.github.msallogout;

import com.microsoft.aad.msal4j.ITokenCache;
import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.microsoft.aad.msal4j.ITokenCacheAccessContext;
import java.util.Map;
import java.util.concurrent.locks.ReentrantLock;

/**
 * MSAL4J's two hooks around a source. MSAL4J calls them in pairs on one thread, around its own memory alone, never
 * around a request of its own; where the first one throws, it does not call the second.
 *
 * <p>Newer versions of MSAL4J put what they deserialize onto what they have in memory, and offer no way to empty it: a
 * row that has gone since the last access therefore ends the operation.
 */
final class OperationAspect implements ITokenCacheAccessAspect {
    /** Where the tokens of one operation are. */
    interface Source {
        /** What is stored now, as far as MSAL may be shown it; null where nothing is. */
        Map<String, Object> load();

        /**
         * Stores MSAL's changes.
         *
         * @param change puts them onto what was loaded
         * @throws SignedOutException where a sign-out was first
         */
        void store(Change change);

        /** MSAL has removed the account. */
        void remove();

        /** The account that MSAL must not be used beyond; null while it is bound to none. */
        String boundAccount();
    }

    /**
     * What MSAL has done to its memory.
     *
     * @param base what was loaded; null where nothing was
     */
    record Change(Map<String, Object> base, Map<String, Object> before, Map<String, Object> after) {
        /** The row with the changes. */
        Map<String, Object> ours(String homeAccountId) {
            return MsalView.apply(base == null ? Map.of() : base, before, after, homeAccountId);
        }
    }

    private final Source source;
    private final String clientId;
    private final ReentrantLock access = new ReentrantLock();
    private ITokenCache owner;
    private boolean hasShownTokens;
    private boolean isOver;
    private Map<String, Object> base;
    private Map<String, Object> before;

    OperationAspect(Source source, String clientId) {
        this.source = source;
        this.clientId = clientId;
    }

    @Override
    public void beforeCacheAccess(ITokenCacheAccessContext context) {
        access.lock();
        boolean isReady = false;
        try {
            check(context);
            base = source.load();
            if (base == null && hasShownTokens || isOver) {
                isOver = true;
                throw new SignedOutException();
            }
            if (base != null) {
                hasShownTokens = true;
                context.tokenCache().deserialize(MsalView.show(base));
            }
            before = context.hasCacheChanged() ? MsalView.read(context.tokenCache().serialize()) : null;
            isReady = true;
        } finally {
            if (!isReady) {
                access.unlock();
            }
        }
    }

    @Override
    public void afterCacheAccess(ITokenCacheAccessContext context) {
        if (!access.isHeldByCurrentThread()) {
            return; // its load failed: what is in memory is not the row's
        }
        try {
            if (before != null) {
                store(context.tokenCache());
            }
        } catch (SignedOutException signedOut) {
            isOver = true; // MSAL's memory has tokens that nobody may use any more
            throw signedOut;
        } finally {
            access.unlock();
        }
    }

    private void store(ITokenCache tokenCache) {
        Map<String, Object> after = MsalView.read(tokenCache.serialize());
        if (after.equals(before)) {
            return;
        }
        boolean hadAccount = base != null && !CacheContents.accountsOf(base).isEmpty();
        if (hadAccount && CacheContents.accountsOf(after).isEmpty()) {
            source.remove();
            hasShownTokens = false; // MSAL has emptied its memory itself
        } else {
            source.store(new Change(base, before, after));
            hasShownTokens = true;
        }
    }

    private void check(ITokenCacheAccessContext context) {
        if (owner == null) {
            owner = context.tokenCache();
        }
        if (owner != context.tokenCache()) {
            throw new TokenCacheMisuseException("one aspect serves one ConfidentialClientApplication: make a new one of each "
                    + "for each operation, by forLogin() or forAccount(…)");
        }
        if (context.clientId() != null && !clientId.equals(context.clientId())) {
            throw new TokenCacheMisuseException("the ConfidentialClientApplication has the client id \"" + context.clientId()
                    + "\", and the token cache \"" + clientId + "\": make a token cache for each client id");
        }
        String bound = source.boundAccount();
        if (bound != null && context.account() != null && !bound.equals(context.account().homeAccountId())) {
            throw new TokenCacheMisuseException(AccountRow.TWO_ACCOUNTS);
        }
    }
}
