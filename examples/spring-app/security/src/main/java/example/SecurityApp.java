package example;

import io.github.msallogout.SharedTokenCache;
import io.github.msallogout.SignOutFilter;
import io.github.msallogout.SignedInSession;
import javax.sql.DataSource;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.Authentication;
import org.springframework.security.core.context.SecurityContextHolder;
import org.springframework.security.oauth2.client.JdbcOAuth2AuthorizedClientService;
import org.springframework.security.oauth2.client.registration.ClientRegistrationRepository;
import org.springframework.security.oauth2.core.oidc.user.OidcUser;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.security.web.access.ExceptionTranslationFilter;
import org.springframework.security.web.authentication.logout.SecurityContextLogoutHandler;

/** An app on Spring Security's own client tokens, in the table {@code oauth2_authorized_client}. */
@SpringBootApplication
public class SecurityApp {
    public static void main(String[] arguments) {
        SpringApplication.run(SecurityApp.class, arguments);
    }

    @Bean
    SharedTokenCache tokenCache(DataSource dataSource, @Value("${app.client-id}") String clientId) {
        return SharedTokenCache.of(dataSource, clientId);
    }

    @Bean(destroyMethod = "close")
    SignedInClients authorizedClients(
            JdbcTemplate jdbc, ClientRegistrationRepository registrations, SharedTokenCache tokenCache) {
        return new SignedInClients(new JdbcOAuth2AuthorizedClientService(jdbc, registrations), jdbc, tokenCache);
    }

    @Bean
    SecurityFilterChain security(HttpSecurity http, SharedTokenCache tokenCache) throws Exception {
        SignOutFilter signOut = new SignOutFilter(
                tokenCache,
                request -> sessionOf(SecurityContextHolder.getContext().getAuthentication()),
                (request, response) -> new SecurityContextLogoutHandler().logout(request, response, null),
                SignOutFilter.WhenUnavailable.FAIL);
        return http.authorizeHttpRequests(requests -> requests.anyRequest().authenticated())
                .oauth2Login(login -> login.userInfoEndpoint(user -> user.oidcUserService(new RegisteredUsers(tokenCache))))
                .oidcLogout(logout -> logout.backChannel(Customizer.withDefaults()))
                .addFilterBefore(signOut, ExceptionTranslationFilter.class)
                .build();
    }

    /** Null where nobody is signed in by an ID token. */
    static SignedInSession sessionOf(Authentication authentication) {
        return authentication != null && authentication.getPrincipal() instanceof OidcUser user
                ? new SignedInSession(user.getIssuer().toString(), user.getClaimAsString("sid"), user.getSubject())
                : null;
    }
}
