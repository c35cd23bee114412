package io.github.msallogout;

import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.microsoft.aad.msal4j.MsalException;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** A process of a web app, for races: it does what its standard input says, on connections of its own. */
final class RaceWorker {
    private final boolean isStock;
    private final HikariDataSource pool = Fixture.pool(Fixture.databaseUrl());
    private final SharedTokenCache tokenCache =
            SharedTokenCache.builder(pool, Fixture.CLIENT_ID).onWarning(message -> {}).build();

    private RaceWorker(boolean isStock) {
        this.isStock = isStock;
    }

    public static void main(String[] arguments) throws IOException {
        RaceWorker worker = new RaceWorker(arguments.length > 0 && arguments[0].equals("stock"));
        ExecutorService threads = Executors.newFixedThreadPool(8);
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        out.println("{}");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            Map<String, Object> task = Json.parseObject(line);
            threads.execute(() -> {
                Map<String, Object> result = new LinkedHashMap<>();
                result.put("id", task.get("id"));
                result.put("outcome", worker.perform(task));
                out.println(Json.write(result));
            });
        }
        System.exit(0);
    }

    private String perform(Map<String, Object> task) {
        TokenEndpoint endpoint = new TokenEndpoint();
        long delayMs = Long.parseLong(((Json.Literal) task.get("delayMs")).text());
        endpoint.beforeAnswer = grantType -> sleep(delayMs);
        Person person = Person.decode((String) task.get("person"));
        String account = person.homeAccountId();
        boolean isLogin = "login".equals(task.get("kind"));
        ITokenCacheAccessAspect aspect =
                isStock ? new StockAspect(pool, account) : isLogin ? tokenCache.forLogin() : tokenCache.forAccount(account);
        try {
            var application = Fixture.application(endpoint, aspect, Person.AUTHORITY, Fixture.CLIENT_ID);
            Fixture.get(
                    isLogin
                            ? application.acquireToken(Fixture.code(person, Fixture.SCOPES))
                            : application.acquireTokenSilently(
                                    Fixture.silentParameters(account, Set.of((String) task.get("scope")), true)));
            return "done";
        } catch (TokenCacheException failure) {
            return failure.code();
        } catch (MsalException failure) {
            return String.valueOf(failure.errorCode());
        } catch (Exception failure) {
            return failure.toString();
        }
    }

    private static void sleep(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
