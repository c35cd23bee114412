package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.aad.msal4j.ClientCredentialFactory;
import com.microsoft.aad.msal4j.ConfidentialClientApplication;
import com.microsoft.aad.msal4j.IAccount;
import com.microsoft.aad.msal4j.IAuthenticationResult;
import com.microsoft.aad.msal4j.IClientCredential;
import com.microsoft.aad.msal4j.SilentParameters;
import jakarta.servlet.http.HttpServletRequest;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import javax.sql.DataSource;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** The pages' code, run: each Java block of a page stands here or in an example, word by word. */
class DocsTest {
    private static final List<Path> PAGES = List.of(Path.of("../../docs/java.md"), Path.of("README.md"));
    private static final List<Path> SOURCES = List.of(
            Path.of("src/test/java/io/github/msallogout/DocsTest.java"), Path.of("../../examples/spring-app"));

    private final Fixture app = new Fixture();
    private final BlockingQueue<String> closed = new LinkedBlockingQueue<>();

    @AfterEach
    void close() {
        app.close();
    }

    private static List<String> blocks(Path page, String language) throws IOException {
        Matcher matcher = Pattern.compile("```" + language + "\n(.*?)```", Pattern.DOTALL).matcher(Files.readString(page));
        List<String> blocks = new ArrayList<>();
        while (matcher.find()) {
            blocks.add(matcher.group(1));
        }
        return blocks;
    }

    /** Without indentation, which depends on where a piece stands. */
    private static String flatten(String code) {
        return "\n" + String.join("\n", code.lines().map(String::strip).toList()) + "\n";
    }

    @Test
    void eachJavaBlockIsATestedPieceOfCode() throws IOException {
        StringBuilder sources = new StringBuilder();
        for (Path source : SOURCES) {
            try (Stream<Path> files = Files.walk(source)) {
                files.filter(file -> file.toString().endsWith(".java")).forEach(file -> sources.append(flatten(read(file))));
            }
        }
        for (Path page : PAGES) {
            List<String> blocks = blocks(page, "java");
            assertFalse(blocks.isEmpty());
            for (String block : blocks) {
                assertTrue(sources.indexOf(flatten(block)) >= 0, page + ":\n" + block);
            }
        }
    }

    private static String read(Path file) {
        try {
            return Files.readString(file);
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }

    @Test
    void theSqlRuns() throws IOException {
        String role = "app_" + UUID.randomUUID().toString().replace("-", "");
        for (Path page : PAGES) {
            for (String block : blocks(page, "sql")) {
                for (String statement : block.split(";\n")) {
                    app.execute(statement.replace("app_a", role).replace("client-a", "client-of-" + role));
                }
            }
        }
        app.execute("drop owned by " + role);
        app.execute("drop role " + role);
    }

    @Test
    void theDependencyIsThisOne() throws IOException {
        String pom = Files.readString(Path.of("pom.xml"));
        for (Path page : PAGES) {
            for (String block : blocks(page, "xml")) {
                for (String element : List.of("groupId", "artifactId", "version")) {
                    Matcher named = Pattern.compile("<" + element + ">.*?</" + element + ">").matcher(block);
                    assertTrue(named.find());
                    assertTrue(pom.contains("  " + named.group()), named.group());
                }
            }
        }
    }

    @Test
    void theBlocksOfUse() throws Exception {
        DataSource dataSource = app.owner;
        String clientId = Fixture.CLIENT_ID;
        SharedTokenCache tokenCache = SharedTokenCache.of(dataSource, clientId);
        tokenCache.check();
        String authority = Person.AUTHORITY;
        Person alice = Person.someone();
        String homeAccountId = alice.homeAccountId();
        app.redeem(tokenCache.forLogin(), alice, Fixture.SCOPES);
        IClientCredential credential = ClientCredentialFactory.createFromSecret("secret");
        Set<String> scopes = Fixture.SCOPES;
        IAccount account = Fixture.account(homeAccountId, "login.example");
        IAuthenticationResult result = ConfidentialClientApplication.builder(clientId, credential)
                .authority(authority)
                .setTokenCacheAccessAspect(tokenCache.forAccount(homeAccountId))
                .build()
                .acquireTokenSilently(SilentParameters.builder(scopes, account).build())
                .join();
        assertNotNull(result.accessToken());
        HttpServletRequest request = SignOutFilterTest.requestWith(new LinkedHashMap<>());
        SignOutFilter.remember(request, SignedInSession.of(result.idToken()));
        assertEquals(alice.session(), SignOutFilter.remembered(request));

        RevocationSubscription subscription = tokenCache.onPurge(revoked -> closeSocketsOf(revoked.sid()));
        app.signOut(alice);
        for (String sid = null; !alice.sid().equals(sid); ) {
            sid = closed.poll(60, TimeUnit.SECONDS);
            assertNotNull(sid);
        }
        subscription.close();
        Throwable failure = assertThrows(
                Exception.class, () -> app.silent(tokenCache.forAccount(homeAccountId), alice, scopes, false));
        boolean mustSignIn = SharedTokenCache.isSignInRequired(failure);
        assertTrue(mustSignIn);
    }

    private void closeSocketsOf(String sid) {
        closed.add(sid);
    }

    @Test
    void theBlocksOfEncryptionAndOfOtherProviders() throws Exception {
        DataSource dataSource = app.owner;
        String clientId = Fixture.CLIENT_ID;
        byte[] k1 = new byte[32];
        byte[] k2 = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32};
        SharedTokenCache encrypted = SharedTokenCache.builder(dataSource, clientId)
                .encryption(Encryption.of("k2", Map.of("k1", k1, "k2", k2)))
                .build();
        Person alice = Person.someone();
        app.redeem(encrypted.forLogin(), alice, Fixture.SCOPES);
        assertNotNull(app.silent(encrypted.forAccount(alice.subject()), alice, Fixture.SCOPES, false).accessToken());

        SharedTokenCache tokenCache = app.tokenCache;
        IClientCredential credential = ClientCredentialFactory.createFromSecret("secret");
        OpenIdProvider provider = OpenIdProvider.of("https://login.example.com");
        ConfidentialClientApplication application = ConfidentialClientApplication.builder(clientId, credential)
                .authority(provider.authority())
                .httpClient(provider.httpClient())
                .setTokenCacheAccessAspect(tokenCache.forLogin())
                .build();
        assertEquals("https://login.example.com/adfs/", application.authority());
    }
}
