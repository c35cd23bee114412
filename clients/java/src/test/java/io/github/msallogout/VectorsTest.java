package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.function.Executable;

/** The vectors that every client passes: {@code clients/conformance/vectors}. */
class VectorsTest {
    private interface Check {
        void run(Map<String, Object> vector) throws Exception;
    }

    private static Stream<DynamicTest> each(String file, Check check) {
        try {
            Map<String, Object> all = Json.parseObject(Files.readString(Path.of("../conformance/vectors/" + file + ".json")));
            List<?> vectors = (List<?>) all.get("vectors");
            assertTrue(vectors.size() > 3);
            return vectors.stream().map(Json::asObject).map(vector -> {
                Executable body = () -> check.run(vector);
                return dynamicTest((String) vector.get("name"), body);
            });
        } catch (IOException missing) {
            throw new UncheckedIOException(missing);
        }
    }

    @TestFactory
    Stream<DynamicTest> encryption() {
        return each("encryption", vector -> {
            Map<String, Object> place = Json.asObject(vector.get("place"));
            PayloadCodec codec = new PayloadCodec(encryptionOf(vector));
            PayloadCodec.Decoded decoded = codec.decode(
                    Base64.getDecoder().decode((String) vector.get("payload")),
                    (String) vector.get("encoding"),
                    new PayloadCodec.Place(
                            (String) place.get("clientId"), (String) place.get("partitionKey"), (String) place.get("generation")));
            assertEquals(vector.get("text"), decoded.text());
            if (vector.get("warns") == null) {
                assertNull(decoded.warning());
            } else {
                assertNotNull(decoded.warning());
                assertEquals("plain".equals(vector.get("warns")), decoded.warning().contains("not encrypted"), decoded.warning());
            }
        });
    }

    private static Encryption encryptionOf(Map<String, Object> vector) {
        Map<String, Object> keys = Json.asObject(vector.get("keys"));
        if (vector.get("current") == null) {
            return null;
        }
        Map<String, byte[]> bytes = new LinkedHashMap<>();
        keys.forEach((id, key) -> bytes.put(id, HexFormat.of().parseHex((String) key)));
        Encryption encryption = Encryption.of((String) vector.get("current"), bytes);
        return Boolean.TRUE.equals(vector.get("allowPlain")) ? encryption.allowingPlain() : encryption;
    }

    @TestFactory
    Stream<DynamicTest> own() {
        return each("own", vector -> assertEquals(
                vector.get("own"),
                CacheContents.own(
                        Json.asObject(vector.get("contents")),
                        (String) vector.get("homeAccountId"),
                        Long.parseLong(((Json.Literal) vector.get("nowSeconds")).text()))));
    }

    @TestFactory
    Stream<DynamicTest> merge() {
        return each("merge", vector -> assertEquals(
                vector.get("merged"),
                CacheContents.merge(
                        Json.asObject(vector.get("base")),
                        Json.asObject(vector.get("ours")),
                        Json.asObject(vector.get("theirs")))));
    }

    @TestFactory
    Stream<DynamicTest> sessions() {
        return each("sessions", vector -> {
            List<Map<String, Object>> sessions = CacheContents.sessionsOf(
                            Json.asObject(vector.get("contents")), (String) vector.get("clientId"))
                    .stream()
                    .map(VectorsTest::members)
                    .toList();
            assertEquals(vector.get("sessions"), sessions);
        });
    }

    private static Map<String, Object> members(SessionClaims session) {
        Map<String, Object> members = new LinkedHashMap<>();
        members.put("issuer", session.issuer());
        members.put("subject", session.subject());
        members.put("sid", session.sid());
        members.put("issuedAt", new Json.Literal(Long.toString(session.issuedAt())));
        members.put("oid", session.oid());
        members.put("tid", session.tid());
        return members;
    }

    @TestFactory
    Stream<DynamicTest> partitions() {
        return each("partitions", vector -> {
            String key = switch ((String) vector.get("kind")) {
                case "user" -> (String) vector.get("homeAccountId");
                case "obo" -> Sources.partitionOf((String) vector.get("assertion"));
                default -> (String) vector.get("given");
            };
            assertEquals(vector.get("partitionKey"), key);
        });
    }
}
