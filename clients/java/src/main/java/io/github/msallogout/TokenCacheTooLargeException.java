package io.github.msallogout;

/**
 * The cache of one account has more than 16 MiB: nothing is stored. No account needs so much; look for what asks for
 * ever new scopes. The code is {@code ERR_TOKEN_CACHE_TOO_LARGE}.
 */
public final class TokenCacheTooLargeException extends TokenCacheException {
    private static final long serialVersionUID = 1L;

    TokenCacheTooLargeException(String message) {
        super("ERR_TOKEN_CACHE_TOO_LARGE", message, null);
    }
}
