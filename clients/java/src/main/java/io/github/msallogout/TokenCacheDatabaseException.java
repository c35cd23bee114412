package io.github.msallogout;

/**
 * The database could not be reached, did not answer in time, or failed: nothing is known of the user's session, so the
 * request fails and may be tried again. The code is {@code ERR_TOKEN_CACHE_DATABASE}.
 *
 * <p>The cause is the driver's error without its detail, which may quote a row.
 */
public final class TokenCacheDatabaseException extends TokenCacheException {
    private static final long serialVersionUID = 1L;

    TokenCacheDatabaseException(String message, Throwable cause) {
        super("ERR_TOKEN_CACHE_DATABASE", message, cause);
    }
}
