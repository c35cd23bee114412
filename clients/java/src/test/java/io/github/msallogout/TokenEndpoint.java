package io.github.msallogout;

import com.microsoft.aad.msal4j.HttpRequest;
import com.microsoft.aad.msal4j.IHttpClient;
import com.microsoft.aad.msal4j.IHttpResponse;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BiConsumer;
import java.util.function.Consumer;

/** A token endpoint behind MSAL4J's own interface of the network, whose edge is the only thing that is replaced. */
final class TokenEndpoint implements IHttpClient {
    private static final String CLOUD = "{\"tenant_discovery_endpoint\":\"https://login.microsoftonline.com/t/v2.0/.well-known"
            + "/openid-configuration\",\"api-version\":\"1.1\",\"metadata\":[{\"preferred_network\":\"login.microsoftonline.com\","
            + "\"preferred_cache\":\"login.windows.net\",\"aliases\":[\"login.microsoftonline.com\",\"login.windows.net\"]}]}";

    final AtomicInteger requests = new AtomicInteger();
    String clientId = Fixture.CLIENT_ID;
    int expiresInSeconds = 3_600;
    /** Runs before each answer, with the grant type: a test has something happen there. */
    volatile Consumer<String> beforeAnswer = grantType -> {};
    /** Changes an answer. */
    volatile BiConsumer<Map<String, Object>, Map<String, Object>> change = (answer, claims) -> {};
    /** An error to be answered instead. */
    volatile String error;

    private record Answer(int statusCode, String body) implements IHttpResponse {
        @Override
        public Map<String, List<String>> headers() {
            return new LinkedHashMap<>(Map.of("Content-Type", new ArrayList<>(List.of("application/json"))));
        }
    }

    @Override
    public IHttpResponse send(HttpRequest request) {
        if (request.url().getPath().endsWith("/common/discovery/instance")) {
            return new Answer(200, CLOUD);
        }
        requests.incrementAndGet();
        Map<String, String> form = formOf(request.body());
        beforeAnswer.accept(form.get("grant_type"));
        if (error != null) {
            return new Answer(400, Json.write(Map.of("error", error, "error_description", "as the test wants it")));
        }
        return new Answer(200, Json.write(answer(form)));
    }

    private Map<String, Object> answer(Map<String, String> form) {
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("token_type", "Bearer");
        answer.put("expires_in", new Json.Literal(Integer.toString(expiresInSeconds)));
        answer.put("scope", form.getOrDefault("scope", ""));
        if ("client_credentials".equals(form.get("grant_type"))) {
            answer.put("access_token", "app-" + UUID.randomUUID());
            return answer;
        }
        Person person = personOf(form);
        long now = Person.now();
        Map<String, Object> claims = new LinkedHashMap<>();
        claims.put("iss", person.issuer());
        claims.put("aud", clientId);
        claims.put("sub", person.subject());
        if (person.sid() != null) {
            claims.put("sid", person.sid());
        }
        claims.put("iat", new Json.Literal(Long.toString(person.issuedAt() == null ? now : person.issuedAt())));
        claims.put("exp", new Json.Literal(Long.toString(now + 3_600)));
        Person later = new Person(person.homeAccountId(), person.subject(), person.sid(), null, person.issuer());
        answer.put("access_token", "at-" + UUID.randomUUID());
        answer.put("refresh_token", later.encode(Map.of("unique", UUID.randomUUID().toString())));
        if (person.hasClientInfo()) {
            String[] parts = person.homeAccountId().split("\\.");
            claims.put("tid", parts[1]);
            answer.put("client_info", Person.base64(Json.write(Map.of("uid", parts[0], "utid", parts[1]))));
        }
        change.accept(answer, claims);
        answer.putIfAbsent("id_token", Person.jwt(claims));
        answer.values().removeIf(""::equals);
        return answer;
    }

    private static Person personOf(Map<String, String> form) {
        String source = form.containsKey("code")
                ? form.get("code")
                : form.containsKey("refresh_token") ? form.get("refresh_token") : form.get("assertion").split("\\.")[1];
        return Person.decode(source);
    }

    static Map<String, String> formOf(String body) {
        Map<String, String> form = new LinkedHashMap<>();
        for (String pair : body.split("&")) {
            String[] parts = pair.split("=", 2);
            form.put(decode(parts[0]), parts.length > 1 ? decode(parts[1]) : "");
        }
        return form;
    }

    private static String decode(String text) {
        return URLDecoder.decode(text, StandardCharsets.UTF_8);
    }
}
