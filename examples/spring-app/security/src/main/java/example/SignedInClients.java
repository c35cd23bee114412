package example;

import io.github.msallogout.RevocationSubscription;
import io.github.msallogout.SharedTokenCache;
import io.github.msallogout.SignedInSession;
import java.util.List;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.security.core.Authentication;
import org.springframework.security.oauth2.client.ClientAuthorizationRequiredException;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientService;

/**
 * Spring Security's client tokens, which go with a sign-out. A row that is stored after the sign-out, by a refresh that was
 * under way, is removed by the one who stored it; any other by the listener.
 */
class SignedInClients implements OAuth2AuthorizedClientService, AutoCloseable {
    private final OAuth2AuthorizedClientService stored;
    private final JdbcTemplate jdbc;
    private final SharedTokenCache tokenCache;
    private final RevocationSubscription subscription;

    SignedInClients(OAuth2AuthorizedClientService stored, JdbcTemplate jdbc, SharedTokenCache tokenCache) {
        this.stored = stored;
        this.jdbc = jdbc;
        this.tokenCache = tokenCache;
        this.subscription = tokenCache.onPurge(revoked -> removeAllOf(revoked.subject()));
        // What was signed out while no process of this app listened.
        principals().stream().filter(name -> !tokenCache.isRegistered(name)).forEach(this::removeAllOf);
    }

    private List<String> principals() {
        return jdbc.queryForList("select distinct principal_name from oauth2_authorized_client", String.class);
    }

    private void removeAllOf(String principalName) {
        jdbc.update("delete from oauth2_authorized_client where principal_name = ?", principalName);
    }

    @Override
    public <T extends OAuth2AuthorizedClient> T loadAuthorizedClient(String registrationId, String principalName) {
        return tokenCache.isRegistered(principalName)
                ? stored.loadAuthorizedClient(registrationId, principalName)
                : null;
    }

    @Override
    public void saveAuthorizedClient(OAuth2AuthorizedClient client, Authentication principal) {
        stored.saveAuthorizedClient(client, principal);
        // After it is stored: a sign-out from now on is heard of by the listener, and finds the row.
        SignedInSession session = SecurityApp.sessionOf(principal);
        if (session != null && !tokenCache.isSessionActive(session)) {
            String registrationId = client.getClientRegistration().getRegistrationId();
            stored.removeAuthorizedClient(registrationId, principal.getName());
            throw new ClientAuthorizationRequiredException(registrationId);
        }
    }

    @Override
    public void removeAuthorizedClient(String registrationId, String principalName) {
        stored.removeAuthorizedClient(registrationId, principalName);
    }

    @Override
    public void close() {
        subscription.close();
    }
}
