package io.github.msallogout;

/** What {@link SharedTokenCache#onPurge} has begun. */
public interface RevocationSubscription extends AutoCloseable {
    /**
     * Ends it, and waits until the listener runs no more, at most five seconds; called by the listener itself, it does not
     * wait. Calling it again does nothing.
     */
    @Override
    void close();
}
