package io.github.msallogout;

/** What the token cache throws. Match {@link #code()}, never a text. */
public abstract class TokenCacheException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** As {@link #code()} has it. */
    private final String code;

    TokenCacheException(String code, String message, Throwable cause) {
        super(message, cause);
        this.code = code;
    }

    /**
     * The stable name of what happened, the same in every language.
     *
     * @return {@code ERR_SIGNED_OUT}, {@code ERR_TOKEN_CACHE_MISUSE}, {@code ERR_TOKEN_CACHE_TOO_LARGE} or
     *     {@code ERR_TOKEN_CACHE_DATABASE}
     */
    public final String code() {
        return code;
    }
}
