package example;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.JWSHeader;
import com.nimbusds.jose.crypto.RSASSASigner;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.RSAKey;
import com.nimbusds.jose.jwk.gen.RSAKeyGenerator;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.SignedJWT;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Date;
import java.util.HashMap;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;

/** An OpenID provider's token endpoint and keys; its issuer is the one whose logout tokens the service obeys. */
final class Provider implements AutoCloseable {
    static final String ISSUER = System.getenv("TEST_ISSUER");
    static final String CLIENT_ID = "client-b";

    record Person(String subject, String sid, Instant issuedAt, String nonce) {}

    final String url;
    /** Runs before a refresh is answered. */
    volatile Runnable beforeRefresh = () -> {};
    private final HttpServer server;
    private final RSAKey key;
    private final Map<String, Person> people = new ConcurrentHashMap<>();

    Provider() throws Exception {
        key = new RSAKeyGenerator(2048).keyID("key").generate();
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        url = "http://127.0.0.1:" + server.getAddress().getPort();
        server.createContext("/keys", exchange -> answer(exchange, new JWKSet(key.toPublicJWK()).toString()));
        server.createContext("/token", this::token);
        server.start();
    }

    /** The code of somebody who has just signed in. */
    String codeOf(Person person) {
        String code = UUID.randomUUID().toString();
        people.put(code, person);
        return code;
    }

    /** A logout token, for an app that takes it itself. */
    String logoutTokenOf(Person person) throws Exception {
        return sign("logout+jwt", new JWTClaimsSet.Builder()
                .issuer(ISSUER)
                .audience(CLIENT_ID)
                .subject(person.subject())
                .claim("sid", person.sid())
                .issueTime(new Date())
                .expirationTime(Date.from(Instant.now().plusSeconds(120)))
                .jwtID(UUID.randomUUID().toString())
                .claim("events", Map.of("http://schemas.openid.net/event/backchannel-logout", Map.of()))
                .build());
    }

    private void token(HttpExchange exchange) throws IOException {
        Map<String, String> form = new HashMap<>();
        for (String pair : new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8).split("&")) {
            String[] parts = pair.split("=", 2);
            form.put(parts[0], URLDecoder.decode(parts[1], StandardCharsets.UTF_8));
        }
        boolean isRefresh = form.containsKey("refresh_token");
        if (isRefresh) {
            beforeRefresh.run();
        }
        Person person = people.get(isRefresh ? form.get("refresh_token") : form.get("code"));
        try {
            String idToken = sign("JWT", new JWTClaimsSet.Builder()
                    .issuer(ISSUER)
                    .audience(CLIENT_ID)
                    .subject(person.subject())
                    .claim("sid", person.sid())
                    .claim("nonce", person.nonce())
                    .issueTime(Date.from(person.issuedAt()))
                    .expirationTime(Date.from(Instant.now().plusSeconds(600)))
                    .build());
            // Access tokens that Spring Security refreshes with each use: they expire within its clock skew.
            answer(exchange, "{\"access_token\":\"at-" + UUID.randomUUID() + "\",\"token_type\":\"Bearer\",\"expires_in\":30,"
                    + "\"refresh_token\":\"" + codeOf(person) + "\",\"id_token\":\"" + idToken + "\"}");
        } catch (Exception failure) {
            throw new IOException(failure);
        }
    }

    private String sign(String type, JWTClaimsSet claims) throws Exception {
        JWSHeader header =
                new JWSHeader.Builder(JWSAlgorithm.RS256).keyID("key").type(new JOSEObjectType(type)).build();
        SignedJWT jwt = new SignedJWT(header, claims);
        jwt.sign(new RSASSASigner(key));
        return jwt.serialize();
    }

    private static void answer(HttpExchange exchange, String body) throws IOException {
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.sendResponseHeaders(200, bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }

    @Override
    public void close() {
        server.stop(0);
    }
}
