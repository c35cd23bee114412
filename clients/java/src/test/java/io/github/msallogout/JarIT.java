package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.jar.JarFile;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import javax.sql.DataSource;
import org.junit.jupiter.api.Test;

/** The jar as others get it: what is in it, what it brings along, its licence. */
class JarIT {
    private static Path jar(String ending) throws IOException {
        try (Stream<Path> files = Files.list(Path.of("target"))) {
            return files.filter(file -> file.getFileName().toString().matches("msal-logout-client-[0-9.]+" + ending + "\\.jar"))
                    .findFirst()
                    .orElseThrow();
        }
    }

    private static String read(JarFile jar, String name) throws IOException {
        try (InputStream in = jar.getInputStream(jar.getEntry(name))) {
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        }
    }

    @Test
    void itHoldsItsClassesItsLicenceAndNothingElse() throws IOException {
        try (JarFile jar = new JarFile(jar("").toFile())) {
            List<String> others = jar.stream()
                    .map(entry -> entry.getName())
                    .filter(name -> !name.endsWith("/") && !name.matches("io/github/msallogout/[A-Za-z$0-9-]+\\.class"))
                    .sorted()
                    .toList();
            assertEquals(
                    List.of(
                            "META-INF/LICENSE",
                            "META-INF/MANIFEST.MF",
                            "META-INF/maven/io.github.msallogout/msal-logout-client/pom.properties",
                            "META-INF/maven/io.github.msallogout/msal-logout-client/pom.xml"),
                    others);
            assertEquals(Files.readString(Path.of("../../LICENSE")), read(jar, "META-INF/LICENSE"));
            assertEquals("io.github.msallogout", jar.getManifest().getMainAttributes().getValue("Automatic-Module-Name"));
            try (InputStream in = jar.getInputStream(jar.getEntry("io/github/msallogout/SharedTokenCache.class"))) {
                assertEquals(61, in.readNBytes(8)[7], "Java 17");
            }
        }
        assertTrue(Files.size(jar("")) < 200_000);
    }

    @Test
    void itBringsAlongMsal4jAlone() throws IOException {
        try (JarFile jar = new JarFile(jar("").toFile())) {
            String pom = read(jar, "META-INF/maven/io.github.msallogout/msal-logout-client/pom.xml");
            Matcher dependencies = Pattern.compile("<dependency>(.*?)</dependency>", Pattern.DOTALL).matcher(pom);
            List<String> brought = new ArrayList<>();
            while (dependencies.find()) {
                String dependency = dependencies.group(1);
                if (!dependency.contains("<scope>")) {
                    brought.add(dependency.replaceAll("(?s).*<artifactId>(.*?)</artifactId>.*", "$1"));
                }
            }
            assertEquals(List.of("msal4j"), brought);
            assertTrue(pom.contains("<name>ISC</name>"));
        }
    }

    @Test
    void sourcesAndJavadocGoWithIt() throws IOException {
        try (JarFile sources = new JarFile(jar("-sources").toFile());
                JarFile javadoc = new JarFile(jar("-javadoc").toFile())) {
            assertNotNull(sources.getEntry("io/github/msallogout/SharedTokenCache.java"));
            assertNotNull(javadoc.getEntry("io.github.msallogout/io/github/msallogout/SharedTokenCache.html"));
            assertEquals(null, javadoc.getEntry("io.github.msallogout/io/github/msallogout/Database.html"), "public ones alone");
        }
    }

    /** Neither PostgreSQL's driver nor the servlet API is there: only JDBC's interfaces are shared with this class. */
    @Test
    void withoutThePostgresDriverAndTheServletApiItWorksAndPolls() throws Exception {
        List<URL> urls = new ArrayList<>();
        urls.add(jar("").toUri().toURL());
        for (String path : System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")).split(":")) {
            String name = Path.of(path).getFileName().toString();
            if (name.endsWith(".jar") && !name.matches("(postgresql|jakarta\\.servlet-api|msal-logout-client).*")) {
                urls.add(Path.of(path).toUri().toURL());
            }
        }
        try (Fixture app = new Fixture();
                URLClassLoader loader = new URLClassLoader(urls.toArray(URL[]::new), ClassLoader.getPlatformClassLoader())) {
            Class<?> type = loader.loadClass("io.github.msallogout.SharedTokenCache");
            Object tokenCache = type.getMethod("of", DataSource.class, String.class).invoke(null, app.owner, Fixture.CLIENT_ID);
            type.getMethod("check").invoke(tokenCache);
            Object isActive = type.getMethod("isSessionActive", String.class, String.class, String.class)
                    .invoke(tokenCache, "issuer", "sid", "subject");
            assertEquals(false, isActive);
            java.util.function.Consumer<Object> listener = revoked -> {};
            AutoCloseable subscription =
                    (AutoCloseable) type.getMethod("onPurge", java.util.function.Consumer.class).invoke(tokenCache, listener);
            assertEquals(0, app.owner.getHikariPoolMXBean().getActiveConnections(), "it holds no connection");
            subscription.close();
            assertFalse(loader.getResources("org/postgresql/Driver.class").hasMoreElements());
        }
    }
}
