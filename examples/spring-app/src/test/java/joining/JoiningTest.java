package joining;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.aad.msal4j.IHttpClient;
import com.microsoft.aad.msal4j.IHttpResponse;
import java.io.IOException;
import java.net.CookieManager;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.junit.jupiter.api.Test;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** From an app in the structure of Microsoft's samples to the shared cache: what changes, and what it is good for. */
class JoiningTest {
    private static final String ENDPOINT = System.getenv("TEST_ENDPOINT");
    private static final int MOST_LINES = 10;
    private static final HttpClient EDGE = HttpClient.newHttpClient();

    private record Answer(int statusCode, Map<String, List<String>> headers, String body) implements IHttpResponse {}

    @Configuration
    static class Edge {
        /** What goes to Microsoft arrives at the endpoint of this run, under the same path. */
        @Bean
        IHttpClient httpClient() {
            return request -> {
                HttpRequest.Builder moved = HttpRequest.newBuilder(URI.create(ENDPOINT + request.url().getFile()));
                request.headers().forEach(moved::setHeader);
                if (request.body() != null) {
                    moved.POST(HttpRequest.BodyPublishers.ofString(request.body()));
                }
                HttpResponse<String> answer = EDGE.send(moved.build(), HttpResponse.BodyHandlers.ofString());
                return new Answer(answer.statusCode(), answer.headers().map(), answer.body());
            };
        }
    }

    private record Browser(HttpClient http, String home) {
        HttpResponse<String> open(String path) throws IOException, InterruptedException {
            return http.send(HttpRequest.newBuilder(URI.create(home + path)).build(), HttpResponse.BodyHandlers.ofString());
        }
    }

    private interface Story {
        void tell(Browser browser, String code, String sid) throws Exception;
    }

    private static void run(Class<?> app, Story story) throws Exception {
        URI url = URI.create(System.getenv("TEST_DATABASE_URL"));
        String[] user = url.getRawUserInfo().split(":", 2);
        try (ConfigurableApplicationContext context = new SpringApplicationBuilder(app, Edge.class).run(
                "--server.port=0",
                "--app.client-id=client-a",
                "--app.client-secret=secret",
                "--app.authority=https://login.microsoftonline.com/7e0a3c5e-0000-4000-8000-000000000001/",
                "--app.redirect-uri=https://app.example/redirect",
                "--app.api-url=",
                "--spring.datasource.url=jdbc:postgresql://" + url.getAuthority().replaceFirst(".*@", "") + url.getPath(),
                "--spring.datasource.username=" + user[0],
                "--spring.datasource.password=" + user[1],
                "--server.servlet.session.cookie.name=session")) {
            String port = context.getEnvironment().getProperty("local.server.port");
            String sid = "sid-" + UUID.randomUUID();
            String person = "{\"homeAccountId\":\"uid-" + UUID.randomUUID() + ".utid\",\"subject\":\"" + UUID.randomUUID()
                    + "\",\"sid\":\"" + sid + "\",\"issuedAt\":" + (System.currentTimeMillis() / 1_000 - 5) + "}";
            String code = Base64.getUrlEncoder().withoutPadding().encodeToString(person.getBytes(StandardCharsets.UTF_8));
            HttpClient http = HttpClient.newBuilder().cookieHandler(new CookieManager()).build();
            story.tell(new Browser(http, "http://127.0.0.1:" + port), code, sid);
        }
    }

    private static void signOut(String sid) throws Exception {
        HttpResponse<String> answer = EDGE.send(
                HttpRequest.newBuilder(URI.create(ENDPOINT + "/control/sign-out"))
                        .POST(HttpRequest.BodyPublishers.ofString("{\"sid\":\"" + sid + "\"}"))
                        .build(),
                HttpResponse.BodyHandlers.ofString());
        assertEquals(200, answer.statusCode());
    }

    @Test
    void beforeASignOutAtTheProviderChangesNothing() throws Exception {
        run(joining.before.SampleApp.class, (browser, code, sid) -> {
            assertEquals("signed in", browser.open("/redirect?code=" + code).body());
            assertTrue(browser.open("/token").body().startsWith("at-"));
            signOut(sid);
            assertTrue(browser.open("/token").body().startsWith("at-"), "it goes on with its tokens");
        });
    }

    @Test
    void afterwardsItIsObeyedAtOnce() throws Exception {
        run(joining.after.SampleApp.class, (browser, code, sid) -> {
            assertEquals("signed in", browser.open("/redirect?code=" + code).body());
            assertTrue(browser.open("/token").body().startsWith("at-"));
            signOut(sid);
            assertEquals(401, browser.open("/token").statusCode());
            assertEquals(401, browser.open("/redirect?code=" + code).statusCode(), "nor does the old code sign in again");
        });
    }

    @Test
    void atMostTenLinesAreTheReadersOwnAndThePageShowsThem() throws IOException {
        List<String> diff = diff(read("before"), read("after"));
        long added = diff.stream().filter(line -> line.startsWith("+")).count();
        System.out.println("joining: " + added + " lines changed or added, "
                + diff.stream().filter(line -> line.startsWith("-")).count() + " changed or removed");
        assertTrue(added <= MOST_LINES, diff.toString());
        String page = Files.readString(Path.of("../../docs/java.md"));
        assertTrue(page.contains("```diff\n" + String.join("\n", diff) + "\n```"), String.join("\n", diff));
    }

    private static List<String> read(String which) throws IOException {
        List<String> lines = Files.readAllLines(Path.of("src/test/java/joining/" + which + "/SampleApp.java"));
        return lines.subList(1, lines.size()); // without the package
    }

    /** The lines that differ, by the longest common subsequence. */
    private static List<String> diff(List<String> before, List<String> after) {
        int[][] common = new int[before.size() + 1][after.size() + 1];
        for (int i = before.size() - 1; i >= 0; i -= 1) {
            for (int j = after.size() - 1; j >= 0; j -= 1) {
                common[i][j] = before.get(i).equals(after.get(j))
                        ? common[i + 1][j + 1] + 1
                        : Math.max(common[i + 1][j], common[i][j + 1]);
            }
        }
        List<String> lines = new ArrayList<>();
        int i = 0;
        int j = 0;
        while (i < before.size() || j < after.size()) {
            if (i < before.size() && j < after.size() && before.get(i).equals(after.get(j))) {
                i += 1;
                j += 1;
            } else if (j == after.size() || i < before.size() && common[i + 1][j] >= common[i][j + 1]) {
                lines.add("-" + before.get(i));
                i += 1;
            } else {
                lines.add("+" + after.get(j));
                j += 1;
            }
        }
        lines.removeIf(line -> line.substring(1).isBlank());
        return lines;
    }
}
