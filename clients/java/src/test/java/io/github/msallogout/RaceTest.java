package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;

/** Real races between Java processes. RACES says how many of each; few by default. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS) // one set of processes for all of them
class RaceTest {
    private static final int RACES = Integer.parseInt(System.getenv().getOrDefault("RACES", "25"));
    private static final int PROCESSES = 3;
    private static final int AT_ONCE = 8;
    private static final long PATIENCE_SECONDS = 60;

    private final Fixture app = new Fixture();
    private final Map<String, List<Worker>> workers = new HashMap<>();
    private volatile List<Worker> current = List.of();
    private final AtomicInteger turn = new AtomicInteger();

    @AfterAll
    void close() throws Exception {
        for (List<Worker> started : workers.values()) {
            for (Worker worker : started) {
                worker.close();
            }
        }
        app.close();
    }

    /** A process that does tasks. */
    private static final class Worker {
        private final Process process;
        private final Writer in;
        private final Map<String, CompletableFuture<String>> waiting = new ConcurrentHashMap<>();

        Worker(String kind) throws IOException {
            process = new ProcessBuilder(
                            ProcessHandle.current().info().command().orElse("java"),
                            "-Xmx128m",
                            "-XX:TieredStopAtLevel=1",
                            "-cp",
                            System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                            RaceWorker.class.getName(),
                            kind)
                    .redirectError(ProcessBuilder.Redirect.INHERIT)
                    .start();
            in = new BufferedWriter(new OutputStreamWriter(process.getOutputStream(), StandardCharsets.UTF_8));
            BufferedReader out =
                    new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
            if (out.readLine() == null) {
                throw new IOException("a worker did not start");
            }
            Thread reader = new Thread(() -> read(out), "worker");
            reader.setDaemon(true);
            reader.start();
        }

        private void read(BufferedReader out) {
            try {
                for (String line = out.readLine(); line != null; line = out.readLine()) {
                    Map<String, Object> result = Json.parseObject(line);
                    waiting.remove((String) result.get("id")).complete((String) result.get("outcome"));
                }
            } catch (IOException ended) {
                throw new UncheckedIOException(ended);
            }
        }

        CompletableFuture<String> perform(Map<String, Object> task) {
            String id = UUID.randomUUID().toString();
            CompletableFuture<String> result = new CompletableFuture<>();
            waiting.put(id, result);
            Map<String, Object> numbered = new HashMap<>(task);
            numbered.put("id", id);
            try {
                synchronized (in) {
                    in.write(Json.write(numbered) + "\n");
                    in.flush();
                }
            } catch (IOException ended) {
                throw new UncheckedIOException(ended);
            }
            return result.orTimeout(PATIENCE_SECONDS, TimeUnit.SECONDS);
        }

        void close() throws Exception {
            in.close();
            if (!process.waitFor(PATIENCE_SECONDS, TimeUnit.SECONDS)) {
                process.destroyForcibly();
            }
        }
    }

    private void use(String kind) throws IOException {
        if (!workers.containsKey(kind)) {
            List<Worker> started = new ArrayList<>();
            workers.put(kind, started);
            for (int i = 0; i < PROCESSES; i += 1) {
                started.add(new Worker(kind));
            }
        }
        current = workers.get(kind);
    }

    private CompletableFuture<String> login(Person person, int delayMs) {
        return perform(Map.of("kind", "login", "person", person.encode(Map.of()), "delayMs", number(delayMs)));
    }

    private List<CompletableFuture<String>> refresh(Person person, int count, int maxDelayMs) {
        List<CompletableFuture<String>> refreshes = new ArrayList<>();
        for (int i = 0; i < count; i += 1) {
            refreshes.add(perform(Map.of(
                    "kind", "refresh", "person", person.encode(Map.of()), "scope", "r-" + i, "delayMs", number(random(maxDelayMs)))));
        }
        return refreshes;
    }

    private CompletableFuture<String> perform(Map<String, Object> task) {
        return current.get(turn.incrementAndGet() % PROCESSES).perform(task);
    }

    private static Json.Literal number(int value) {
        return new Json.Literal(Integer.toString(value));
    }

    private static int random(int max) {
        return ThreadLocalRandom.current().nextInt(max);
    }

    private interface Race {
        void run(int i) throws Exception;
    }

    /** Runs so many races, a few at once. */
    private static void repeat(int count, Race race) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(AT_ONCE);
        try {
            List<Future<Void>> all = new ArrayList<>();
            for (int i = 0; i < count; i += 1) {
                int number = i;
                Callable<Void> one = () -> {
                    race.run(number);
                    return null;
                };
                all.add(threads.submit(one));
            }
            for (Future<Void> one : all) {
                one.get();
            }
        } finally {
            threads.shutdownNow();
        }
    }

    private static Person someone() {
        return Person.someone().issuedAt(Person.now() - 5);
    }

    @Test
    void aPurgeAmidFiveRefreshesInSeveralProcessesIsNeverUndone() throws Exception {
        use("ours");
        Map<String, Integer> outcomes = new TreeMap<>();
        AtomicInteger undone = new AtomicInteger();
        repeat(RACES, i -> {
            Person person = someone();
            assertEquals("done", login(person, 0).get());
            List<CompletableFuture<String>> refreshes = refresh(person, 5, 8);
            Thread.sleep(random(15));
            app.signOut(person);
            for (CompletableFuture<String> refresh : refreshes) {
                String outcome = refresh.get();
                synchronized (outcomes) {
                    outcomes.merge(outcome, 1, Integer::sum);
                }
            }
            undone.addAndGet(app.stored(person.subject()) == null ? 0 : 1);
        });
        System.out.println(RACES + " purges: undone " + undone + "; the refreshes: " + outcomes);
        assertEquals(0, undone.get());
        assertTrue(Set.of("done", "ERR_SIGNED_OUT", "cache_miss").containsAll(outcomes.keySet()), outcomes.toString());
        assertTrue(outcomes.containsKey("done") || outcomes.containsKey("ERR_SIGNED_OUT"), outcomes.toString());
    }

    @Test
    void theControlMsalsDocumentedSampleBringsPurgedRowsBack() throws Exception {
        app.execute("create table if not exists stock_cache (key text primary key, value text not null)");
        use("stock");
        int count = Math.min(RACES, 200);
        AtomicInteger undone = new AtomicInteger();
        repeat(count, i -> {
            Person person = someone();
            assertEquals("done", login(person, 0).get());
            List<CompletableFuture<String>> refreshes = refresh(person, 5, 8);
            Thread.sleep(random(15));
            app.query("delete from stock_cache where key = ? returning key", person.subject());
            for (CompletableFuture<String> refresh : refreshes) {
                refresh.get();
            }
            undone.addAndGet(app.query("select 1 from stock_cache where key = ?", person.subject()).size());
        });
        System.out.println(count + " purges of the control: undone " + undone);
        assertTrue(undone.get() > 0, "so the check can fail");
    }

    @Test
    void aLoginThatRacesItsOwnSignOutIsNeverMissedAndALaterOneWorks() throws Exception {
        use("ours");
        AtomicInteger missed = new AtomicInteger();
        AtomicInteger rejected = new AtomicInteger();
        AtomicInteger later = new AtomicInteger();
        repeat(RACES, i -> {
            Person person = someone();
            CompletableFuture<String> login = login(person, random(6));
            Thread.sleep(random(12));
            if (i % 2 == 0) {
                Fixture.signOut(person.sid(), null);
            } else {
                Fixture.signOut(null, person.subject());
            }
            rejected.addAndGet("ERR_SIGNED_OUT".equals(login.get()) ? 1 : 0);
            missed.addAndGet(app.stored(person.subject()) == null ? 0 : 1);
            Person next = person.withSid("sid-" + UUID.randomUUID()).issuedAt(Person.now() + 5);
            boolean isStored = "done".equals(login(next, 0).get()) && app.stored(person.subject()) != null;
            later.addAndGet(isStored ? 1 : 0);
        });
        System.out.println(RACES + " logins: missed " + missed + "; rejected " + rejected + ", stored and deleted "
                + (RACES - rejected.get()) + "; later logins " + later);
        assertEquals(0, missed.get());
        assertEquals(RACES, later.get());
    }

    @Test
    void anOldSessionsRefreshNeverTouchesTheRowOfTheNextLogin() throws Exception {
        use("ours");
        AtomicInteger touched = new AtomicInteger();
        repeat(RACES, i -> {
            Person person = someone();
            Person next = person.withSid("next-" + UUID.randomUUID()).issuedAt(Person.now() + 5);
            assertEquals("done", login(person, 0).get());
            List<CompletableFuture<String>> refreshes = refresh(person, 3, 12);
            Thread.sleep(random(6));
            app.signOut(person);
            assertEquals("done", login(next, 0).get());
            for (CompletableFuture<String> refresh : refreshes) {
                refresh.get();
            }
            Map<String, Object> token =
                    CacheContents.entitiesOf(app.contents(person.subject()), "RefreshToken").values().iterator().next();
            touched.addAndGet(next.sid().equals(Person.decode((String) token.get("secret")).sid()) ? 0 : 1);
        });
        System.out.println(RACES + " next logins: touched " + touched);
        assertEquals(0, touched.get());
    }

    @Test
    void concurrentRefreshesInSeveralProcessesLoseNoToken() throws Exception {
        use("ours");
        AtomicInteger lost = new AtomicInteger();
        int users = (RACES + 2) / 3;
        repeat(users, i -> {
            Person person = someone();
            assertEquals("done", login(person, 0).get());
            for (CompletableFuture<String> refresh : refresh(person, 6, 3)) {
                assertEquals("done", refresh.get());
            }
            lost.addAndGet(7 - Fixture.targets(app.contents(person.subject())).size());
        });
        System.out.println(users + " users, 6 refreshes each: access tokens lost " + lost);
        assertEquals(0, lost.get());
    }
}
