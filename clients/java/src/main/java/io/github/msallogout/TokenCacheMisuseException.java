package io.github.msallogout;

/**
 * A mistake in the use or the set-up of the token cache; the message says what to do instead. The code is
 * {@code ERR_TOKEN_CACHE_MISUSE}.
 */
public final class TokenCacheMisuseException extends TokenCacheException {
    private static final long serialVersionUID = 1L;

    TokenCacheMisuseException(String message) {
        this(message, null);
    }

    TokenCacheMisuseException(String message, Throwable cause) {
        super("ERR_TOKEN_CACHE_MISUSE", message, cause);
    }
}
