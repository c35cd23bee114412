package example;

import io.github.msallogout.SharedTokenCache;
import io.github.msallogout.SignedOutException;
import org.springframework.security.oauth2.client.oidc.userinfo.OidcUserRequest;
import org.springframework.security.oauth2.client.oidc.userinfo.OidcUserService;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.core.oidc.user.OidcUser;

/** Registers each login, after its ID token was verified and before its tokens are stored. */
class RegisteredUsers extends OidcUserService {
    private final SharedTokenCache tokenCache;

    RegisteredUsers(SharedTokenCache tokenCache) {
        this.tokenCache = tokenCache;
    }

    @Override
    public OidcUser loadUser(OidcUserRequest request) {
        OidcUser user = super.loadUser(request);
        try {
            tokenCache.registerLogin(request.getIdToken().getTokenValue(), user.getSubject());
        } catch (SignedOutException signedOut) {
            throw new OAuth2AuthenticationException("signed_out");
        }
        return user;
    }
}
