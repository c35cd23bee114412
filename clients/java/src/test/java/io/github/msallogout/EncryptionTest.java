package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.aad.msal4j.MsalClientException;
import java.security.SecureRandom;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.function.BiConsumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

class EncryptionTest {
    private final byte[] k1 = key();
    private final byte[] k2 = key();
    private final Fixture app = new Fixture(Encryption.of("k1", Map.of("k1", k1)));

    @AfterEach
    void close() {
        app.close();
    }

    private static byte[] key() {
        byte[] key = new byte[32];
        new SecureRandom().nextBytes(key);
        return key;
    }

    private Map<String, Object> row(Person person) {
        return app.query(
                        "select payload, encoding, version from msal_logout.token_cache where partition_key = ?",
                        person.homeAccountId())
                .get(0);
    }

    @Test
    void aStoredPayloadSaysNothing() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        assertEquals("gzip+a256gcm:k1", row(alice).get("encoding"));
        assertFalse(app.stored(alice.subject()).contains("secret"));
        int before = app.endpoint.requests.get();
        app.silent(alice, Fixture.SCOPES, false);
        assertEquals(before, app.endpoint.requests.get());
    }

    @Test
    void aRowIsWrittenAnewUnderTheCurrentKeyAsItIsUsed() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        SharedTokenCache rotated = app.build(app.owner, Encryption.of("k2", Map.of("k1", k1, "k2", k2)));
        app.silent(rotated.forAccount(alice.subject()), alice, Set.of("api-2"), false);
        assertEquals("gzip+a256gcm:k2", row(alice).get("encoding"));
        int before = app.endpoint.requests.get();
        app.silent(rotated.forAccount(alice.subject()), alice, Fixture.SCOPES, false);
        assertEquals(before, app.endpoint.requests.get(), "and nothing is lost");
        assertEquals(List.of(), app.warnings);
    }

    @Test
    void aLoginASignOutAndARefreshGoAsWithoutIt() throws Exception {
        Person alice = Person.someone().issuedAt(Person.now() - 5);
        app.redeem(alice);
        app.endpoint.beforeAnswer = grantType -> app.signOut(alice);
        assertThrows(SignedOutException.class, () -> app.silent(alice, Fixture.SCOPES, true));
        app.endpoint.beforeAnswer = grantType -> {};
        assertThrows(SignedOutException.class, () -> app.redeem(alice));
        assertNull(app.stored(alice.subject()));
    }

    @Test
    void aSecondLoginIsOneStatementAndTheRowIsNeverEmptyInBetween() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        long version = (Long) row(alice).get("version");
        app.redeem(alice.withSid("sid-" + UUID.randomUUID()));
        assertEquals(version + 1, row(alice).get("version"));
    }

    @Test
    void aLoginThatDiesBeforeItsPayloadIsSavedLeavesAnEmptyRowAndTheNextOneWorks() throws Exception {
        Person alice = Person.someone();
        SessionClaims session = new SessionClaims(alice.issuer(), alice.sid(), alice.subject(), Person.now(), null, null);
        CacheRows rows = new CacheRows(
                new Database(app.owner, java.time.Duration.ofSeconds(5)), Fixture.CLIENT_ID, java.time.Duration.ofDays(1));
        rows.login(new CacheRows.Login(alice.subject(), alice.subject(), session, "user"), PayloadCodec.NONE);
        assertThrows(MsalClientException.class, () -> app.silent(alice, Fixture.SCOPES, false));
        assertEquals(List.of(), app.warnings, "a login that is under way is nobody's mistake");
        app.redeem(alice);
        assertNotNull(app.silent(alice, Fixture.SCOPES, false).accessToken());
        app.signOut(alice);
        assertNull(app.stored(alice.subject()));
    }

    static List<Arguments> damages() {
        return List.of(
                damage("a flipped bit", "payload = set_bit(payload, 300, 1 - get_bit(payload, 300))", "cannot be decrypted"),
                damage("a flipped bit of the tag", "payload = set_bit(payload, 100, 1 - get_bit(payload, 100))", "cannot be decrypted"),
                damage("a payload cut short", "payload = substr(payload, 1, 20)", "cannot be decrypted"),
                damage("another generation", "generation = generation + 1", "cannot be decrypted"),
                damage("a key that nobody has", "encoding = 'gzip+a256gcm:k3'", "not among the keys: add it"),
                damage("an encoding of tomorrow", "encoding = 'zstd'", "does not know"),
                damage("a plain payload", "payload = '{}', encoding = 'json'", "allowingPlain"),
                damage("a payload of another row",
                        "payload = (select payload from msal_logout.token_cache where partition_key = '%s')", "cannot be decrypted"));
    }

    private static Arguments damage(String name, String change, String warning) {
        BiConsumer<Fixture, Person> damage = (app, alice) -> {
            Person bob = Person.someone();
            try {
                app.redeem(bob);
            } catch (Exception failure) {
                throw new IllegalStateException(failure);
            }
            app.execute("update msal_logout.token_cache set " + change.replace("%s", bob.subject()) + " where partition_key = '"
                    + alice.subject() + "'");
        };
        return Arguments.of(name, damage, warning);
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("damages")
    void aRowThatCannotBeDecodedCountsAsEmptyIsWarnedOfAndReplacedByTheNextLogin(
            String name, BiConsumer<Fixture, Person> damage, String warning) throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        damage.accept(app, alice);
        assertEquals(Set.of(), Fixture.get(app.application(app.tokenCache.forAccount(alice.subject())).getAccounts()));
        assertEquals(1, app.warnings.size());
        assertTrue(app.warnings.get(0).contains(warning), app.warnings.get(0));
        assertThrows(MsalClientException.class, () -> app.silent(alice, Fixture.SCOPES, false));
        app.redeem(alice);
        assertNotNull(app.silent(alice, Fixture.SCOPES, false).accessToken());
        assertEquals(1, app.warnings.size(), "once");
    }

    @Test
    void whileEncryptionIsIntroducedPlainRowsAreReadAndEncryptedAsTheyAreWritten() throws Exception {
        Person alice = Person.someone();
        app.redeem(app.build(app.owner, null).forLogin(), alice, Fixture.SCOPES);
        assertThrows(MsalClientException.class, () -> app.silent(alice, Fixture.SCOPES, false));
        SharedTokenCache introducing = app.build(app.owner, Encryption.of("k1", Map.of("k1", k1)).allowingPlain());
        int before = app.endpoint.requests.get();
        app.silent(introducing.forAccount(alice.subject()), alice, Fixture.SCOPES, false);
        assertEquals(before, app.endpoint.requests.get());
        app.silent(introducing.forAccount(alice.subject()), alice, Set.of("api-2"), false);
        assertEquals("gzip+a256gcm:k1", row(alice).get("encoding"));
    }

    @Test
    void tokensOfTheAppAreEncryptedToo() throws Exception {
        String partition = "client-a." + UUID.randomUUID();
        app.appToken(app.tokenCache, partition, Fixture.SCOPES);
        int before = app.endpoint.requests.get();
        app.appToken(app.tokenCache, partition, Fixture.SCOPES);
        assertEquals(before, app.endpoint.requests.get());
        assertFalse(app.stored(partition).contains("secret"));
    }

    @Test
    void onBehalfOfRowsAreEncryptedToo() throws Exception {
        Person alice = Person.someone();
        String assertion = Person.base64("{\"alg\":\"RS256\"}") + "." + alice.encode(Map.of()) + ".c2ln";
        app.onBehalfOf(app.tokenCache, assertion, Fixture.SCOPES);
        int before = app.endpoint.requests.get();
        app.onBehalfOf(app.tokenCache, assertion, Fixture.SCOPES);
        assertEquals(before, app.endpoint.requests.get());
        assertFalse(app.stored(Sources.partitionOf(assertion)).contains("secret"));
    }

    @Test
    void keysThatCannotWorkAreErrorsAtOnce() {
        assertTrue(assertThrows(TokenCacheMisuseException.class, () -> Encryption.of("k", Map.of("k", new byte[16])))
                .getMessage()
                .contains("must have 32 bytes and has 16"));
        assertTrue(assertThrows(TokenCacheMisuseException.class, () -> Encryption.of("k", null))
                .getMessage()
                .contains("a map of keys is missing"));
        assertThrows(TokenCacheMisuseException.class, () -> Encryption.of(null, Map.of("k1", k1)));
        assertTrue(assertThrows(TokenCacheMisuseException.class, () -> Encryption.of("k2", Map.of("k1", k1)))
                .getMessage()
                .contains("\"k2\" is current, and not among the keys"));
    }

    @Test
    void whatCouldNotBeReadAgainIsNotStored() {
        PayloadCodec codec = new PayloadCodec(Encryption.of("k1", Map.of("k1", k1)));
        PayloadCodec.Place place = new PayloadCodec.Place("c", "p", "1");
        String most = "{" + " ".repeat(16 * 1024 * 1024 - 2) + "}";
        PayloadCodec.Encoded encoded = codec.encode(most, place);
        assertEquals(most, codec.decode(encoded.payload(), encoded.encoding(), place).text());
        TokenCacheTooLargeException tooLarge =
                assertThrows(TokenCacheTooLargeException.class, () -> codec.encode(most + " ", place));
        assertEquals("ERR_TOKEN_CACHE_TOO_LARGE", tooLarge.code());
    }
}
