package example;

import io.github.msallogout.OpenIdProvider;
import io.github.msallogout.SharedTokenCache;
import io.github.msallogout.SignOutFilter;
import javax.sql.DataSource;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;

/** A web app on Spring Boot that shares the token cache. */
@SpringBootApplication
public class SpringApp {
    public static void main(String[] arguments) {
        SpringApplication.run(SpringApp.class, arguments);
    }

    @Bean
    SharedTokenCache tokenCache(DataSource dataSource, @Value("${app.client-id}") String clientId) {
        SharedTokenCache tokenCache = SharedTokenCache.of(dataSource, clientId);
        tokenCache.check(); // a wrong role or an old schema is said now, and not to the first user
        return tokenCache;
    }

    /** A sign-out at the provider ends the session here with the next request, in every process. */
    @Bean
    SignOutFilter signOutFilter(SharedTokenCache tokenCache) {
        return new SignOutFilter(tokenCache);
    }

    /** Not needed with Entra ID: there MSAL4J knows the endpoints by itself. */
    @Bean
    OpenIdProvider provider(@Value("${app.authority}") String authority) {
        return OpenIdProvider.of(authority);
    }
}
