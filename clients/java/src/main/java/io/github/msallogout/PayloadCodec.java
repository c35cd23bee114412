package io.github.msallogout;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.List;
import java.util.zip.GZIPInputStream;
import java.util.zip.GZIPOutputStream;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/** The coding of payloads: JSON as it is, or compressed and then encrypted. */
final class PayloadCodec {
    /** Where a payload stands; bound to the encrypted one. */
    record Place(String clientId, String partitionKey, String generation) {}

    record Encoded(byte[] payload, String encoding) {}

    /**
     * What a payload says.
     *
     * @param text null where the row counts as empty
     * @param warning what an operator should mend, or null
     */
    record Decoded(String text, String warning) {}

    /** A login whose payload is on its way: it is encrypted when the generation is known. */
    static final Encoded NONE = new Encoded(new byte[0], "none");

    private static final String PREFIX = "gzip+a256gcm:";
    private static final int NONCE_BYTES = 12;
    private static final int TAG_BYTES = 16;
    private static final int MAX_BYTES = 16 * 1024 * 1024;
    private static final String EMPTY = "; it counts as empty, and its user signs in again";

    private final Encryption encryption;
    private final SecureRandom random = new SecureRandom();

    /** @param encryption null: payloads are stored as they are */
    PayloadCodec(Encryption encryption) {
        this.encryption = encryption;
    }

    /** Whether a payload depends on its generation, which a row has only once it is there. */
    boolean bindsGeneration() {
        return encryption != null;
    }

    /** @throws TokenCacheTooLargeException beyond 16 MiB, which nobody would read again */
    Encoded encode(String text, Place place) {
        byte[] plain = text.getBytes(StandardCharsets.UTF_8);
        if (plain.length > MAX_BYTES) {
            throw new TokenCacheTooLargeException("a cache of " + plain.length
                    + " bytes is not stored: at most 16 MiB are. Look for what asks for ever new scopes");
        }
        if (encryption == null) {
            return new Encoded(plain, "json");
        }
        byte[] nonce = new byte[NONCE_BYTES];
        random.nextBytes(nonce);
        try {
            Cipher cipher = cipher(Cipher.ENCRYPT_MODE, encryption.current, nonce, place);
            byte[] sealed = cipher.doFinal(compress(plain)); // the text, then its tag; stored the other way round
            int bytes = sealed.length - TAG_BYTES;
            byte[] payload = ByteBuffer.allocate(NONCE_BYTES + sealed.length)
                    .put(nonce)
                    .put(sealed, bytes, TAG_BYTES)
                    .put(sealed, 0, bytes)
                    .array();
            return new Encoded(payload, PREFIX + encryption.current);
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException("AES-256-GCM does not work in this Java", impossible);
        }
    }

    Decoded decode(byte[] payload, String encoding, Place place) {
        if (encoding.equals("none") && payload.length == 0) {
            return new Decoded("{}", null);
        }
        if (encoding.equals("json")) {
            return decodePlain(payload);
        }
        if (!encoding.startsWith(PREFIX)) {
            return new Decoded(null, "a row of the token cache has the encoding \"" + shorten(encoding)
                    + "\", which this client does not know" + EMPTY);
        }
        String keyId = encoding.substring(PREFIX.length());
        if (encryption == null || !encryption.keys.containsKey(keyId)) {
            return new Decoded(null, "a row of the token cache is encrypted with the key \"" + shorten(keyId)
                    + "\", which is not among the keys: add it" + EMPTY);
        }
        try {
            if (payload.length >= NONCE_BYTES + TAG_BYTES) {
                return new Decoded(decrypt(payload, keyId, place), null);
            }
        } catch (GeneralSecurityException | IOException undecodable) {
            // as a payload that is too short
        }
        return new Decoded(null, "a row of the token cache cannot be decrypted with the key \"" + keyId
                + "\": another key has this id elsewhere, or the payload was changed or moved" + EMPTY);
    }

    private Decoded decodePlain(byte[] payload) {
        if (encryption != null && !encryption.allowPlain) {
            return new Decoded(null, "a row of the token cache is not encrypted: where encryption is being introduced, use "
                    + "Encryption.allowingPlain() until all rows are; else somebody else wrote it" + EMPTY);
        }
        String warning = encryption == null
                ? null
                : "a row of the token cache is not encrypted yet; it is read, since Encryption.allowingPlain() says so";
        try {
            return payload.length > MAX_BYTES ? undecodable() : new Decoded(decodeUtf8(payload), warning);
        } catch (CharacterCodingException notText) {
            return undecodable();
        }
    }

    static Decoded undecodable() {
        return new Decoded(null, "a row of the token cache is no JSON object of at most 16 MiB" + EMPTY);
    }

    private String decrypt(byte[] payload, String keyId, Place place) throws GeneralSecurityException, IOException {
        byte[] nonce = Arrays.copyOf(payload, NONCE_BYTES);
        int start = NONCE_BYTES + TAG_BYTES;
        byte[] sealed = ByteBuffer.allocate(payload.length - NONCE_BYTES)
                .put(payload, start, payload.length - start)
                .put(payload, NONCE_BYTES, TAG_BYTES)
                .array();
        return decodeUtf8(decompress(cipher(Cipher.DECRYPT_MODE, keyId, nonce, place).doFinal(sealed)));
    }

    private Cipher cipher(int mode, String keyId, byte[] nonce, Place place) throws GeneralSecurityException {
        Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
        cipher.init(
                mode,
                new SecretKeySpec(encryption.keys.get(keyId), "AES"),
                new GCMParameterSpec(TAG_BYTES * 8, nonce));
        List<Object> additional = List.of(keyId, place.clientId(), place.partitionKey(), place.generation());
        cipher.updateAAD(Json.write(additional).getBytes(StandardCharsets.UTF_8));
        return cipher;
    }

    private static byte[] compress(byte[] plain) {
        ByteArrayOutputStream out = new ByteArrayOutputStream(plain.length / 2 + 64);
        try (GZIPOutputStream gzip = new GZIPOutputStream(out, 8192)) {
            gzip.write(plain);
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
        return out.toByteArray();
    }

    /** Stops at the limit, even if the payload claims to be smaller. */
    private static byte[] decompress(byte[] compressed) throws IOException {
        try (GZIPInputStream gzip = new GZIPInputStream(new ByteArrayInputStream(compressed), 8192)) {
            byte[] plain = gzip.readNBytes(MAX_BYTES + 1);
            if (plain.length > MAX_BYTES) {
                throw new IOException("more than 16 MiB");
            }
            return plain;
        }
    }

    private static String decodeUtf8(byte[] bytes) throws CharacterCodingException {
        return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
    }

    private static String shorten(String name) {
        String start = name.length() > 60 ? name.substring(0, 60) + "…" : name;
        return start.replaceAll("[\\p{Cntrl}\"]", "?");
    }
}
