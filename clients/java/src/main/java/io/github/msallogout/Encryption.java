package io.github.msallogout;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The keys with which payloads are encrypted: AES-256-GCM over the compressed cache. Client id, partition and generation
 * are bound to it, so that a payload cannot be moved to another row.
 *
 * <p>To change keys, add the new one everywhere, make it current everywhere, and drop the old one when the column
 * {@code encoding} names it nowhere.
 */
public final class Encryption {
    private static final int KEY_BYTES = 32;

    final String current;
    final Map<String, byte[]> keys;
    final boolean allowPlain;

    private Encryption(String current, Map<String, byte[]> keys, boolean allowPlain) {
        this.current = current;
        this.keys = keys;
        this.allowPlain = allowPlain;
    }

    /**
     * Keys by id. Rows that are not encrypted count as empty, since nothing binds them to their place.
     *
     * @param current the id of the key that new payloads are encrypted with
     * @param keys keys by id, 32 bytes each; older ones stay until their rows have been written anew
     * @return the keys, for {@link SharedTokenCache.Builder#encryption}
     * @throws TokenCacheMisuseException where the current key is not among the keys, or a key has not 32 bytes
     */
    public static Encryption of(String current, Map<String, byte[]> keys) {
        SharedTokenCache.require(current, "the id of the current key", "pass one of the keys' ids");
        SharedTokenCache.require(keys, "a map of keys", "pass keys of 32 bytes by their ids");
        Map<String, byte[]> copies = new LinkedHashMap<>();
        keys.forEach((id, key) -> {
            if (key == null || key.length != KEY_BYTES) {
                throw new TokenCacheMisuseException("encryption key \"" + id + "\" must have 32 bytes and has "
                        + (key == null ? 0 : key.length) + ": make one with \"openssl rand 32\"");
            }
            copies.put(id, key.clone());
        });
        if (!copies.containsKey(current)) {
            throw new TokenCacheMisuseException("encryption key \"" + current + "\" is current, and not among the keys");
        }
        return new Encryption(current, copies, false);
    }

    /**
     * The same keys, for the days in which encryption is introduced: rows that are not encrypted are read, and encrypted
     * when they are next written. Turn it off when the column {@code encoding} says {@code json} nowhere.
     *
     * @return keys that read plain rows too
     */
    public Encryption allowingPlain() {
        return new Encryption(current, keys, true);
    }
}
