package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.aad.msal4j.ConfidentialClientApplication;
import com.microsoft.aad.msal4j.IAccount;
import com.microsoft.aad.msal4j.IAuthenticationResult;
import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.microsoft.aad.msal4j.ITokenCacheAccessContext;
import com.microsoft.aad.msal4j.MsalClientException;
import com.microsoft.aad.msal4j.SilentParameters;
import com.microsoft.aad.msal4j.TokenSource;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class TokenCacheTest {
    private static final String HEADER = Person.base64("{\"alg\":\"RS256\"}") + ".";

    private final Fixture app = new Fixture();

    @AfterEach
    void close() {
        app.close();
    }

    private interface Request {
        IAuthenticationResult send() throws Exception;
    }

    /** Where a token came from: the cache, where the provider was not asked. (Not every version of MSAL4J says so.) */
    private TokenSource source(Request request) throws Exception {
        int before = app.endpoint.requests.get();
        assertNotNull(request.send().accessToken());
        return app.endpoint.requests.get() == before ? TokenSource.CACHE : TokenSource.IDENTITY_PROVIDER;
    }

    @Test
    void aTokenIsFoundByAnotherApplicationAndRefreshedForOtherScopes() throws Exception {
        Person alice = Person.someone();
        IAuthenticationResult login = app.redeem(alice);
        assertEquals(alice.subject(), login.account().homeAccountId());
        assertEquals(TokenSource.CACHE, source(() -> app.silent(alice, Fixture.SCOPES, false)));
        assertEquals(TokenSource.IDENTITY_PROVIDER, source(() -> app.silent(alice, Set.of("api-2"), false)));
        assertEquals(TokenSource.CACHE, source(() -> app.silent(alice, Set.of("api-2"), false)));
        assertEquals(List.of("api-1 openid profile offline_access", "api-2 openid profile offline_access"),
                Fixture.targets(app.contents(alice.subject())));
        assertTrue(app.tokenCache.isSessionActive(alice.session()));
    }

    @Test
    void anAccountOfEntraIdIsFoundByItsHomeAccountId() throws Exception {
        Person guest = new Person(
                "uid-" + UUID.randomUUID() + ".utid", UUID.randomUUID().toString(), "sid", null, "https://login.microsoftonline.com/t/v2.0");
        String authority = "https://login.microsoftonline.com/t/";
        IAuthenticationResult login = Fixture.get(app.application(app.tokenCache.forLogin(), authority, Fixture.CLIENT_ID)
                .acquireToken(Fixture.code(guest, Fixture.SCOPES)));
        assertEquals(guest.homeAccountId(), login.account().homeAccountId());
        assertEquals(TokenSource.CACHE, source(() -> Fixture.get(
                app.application(app.tokenCache.forAccount(guest.homeAccountId()), authority, Fixture.CLIENT_ID)
                        .acquireTokenSilently(SilentParameters.builder(Fixture.SCOPES, login.account()).build()))));
        List<Map<String, Object>> sessions =
                app.query("select oid, tid from msal_logout.sessions where subject = ?", guest.subject());
        assertEquals("utid", sessions.get(0).get("tid"));
    }

    @Test
    void afterASignOutTheRowIsGoneAndNothingIsFound() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        app.signOut(alice);
        assertNull(app.stored(alice.subject()));
        assertFalse(app.tokenCache.isSessionActive(alice.session()));
        MsalClientException missing =
                assertThrows(MsalClientException.class, () -> app.silent(alice, Fixture.SCOPES, false));
        assertTrue(SharedTokenCache.isSignInRequired(missing));
    }

    @Test
    void aRefreshThatASignOutOvertakesStoresNothing() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        app.endpoint.beforeAnswer = grantType -> app.signOut(alice);
        SignedOutException lost = assertThrows(SignedOutException.class, () -> app.silent(alice, Fixture.SCOPES, true));
        assertEquals("ERR_SIGNED_OUT", lost.code());
        assertNull(app.stored(alice.subject()));
    }

    @Test
    void aSignOutBetweenTheLoadAndTheSaveOfARefreshWins() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        ITokenCacheAccessAspect aspect = before(app.tokenCache.forAccount(alice.subject()), () -> app.signOut(alice));
        assertThrows(SignedOutException.class, () -> app.silent(aspect, alice, Fixture.SCOPES, true));
        assertNull(app.stored(alice.subject()));
    }

    /** An aspect that has something happen after its load and before its save. */
    private static ITokenCacheAccessAspect before(ITokenCacheAccessAspect aspect, Runnable action) {
        return new ITokenCacheAccessAspect() {
            @Override
            public void beforeCacheAccess(ITokenCacheAccessContext context) {
                aspect.beforeCacheAccess(context);
            }

            @Override
            public void afterCacheAccess(ITokenCacheAccessContext context) {
                if (context.hasCacheChanged()) {
                    action.run();
                }
                aspect.afterCacheAccess(context);
            }
        };
    }

    @Test
    void aLoginWithAnIdTokenFromBeforeTheSignOutIsRejected() throws Exception {
        Person alice = Person.someone().issuedAt(Person.now() - 5);
        app.signOut(alice);
        SignedOutException lost = assertThrows(SignedOutException.class, () -> app.redeem(alice));
        assertTrue(SharedTokenCache.isSignInRequired(new ExecutionException(lost)));
        assertNull(app.stored(alice.subject()));
        app.redeem(alice.withSid("sid-" + UUID.randomUUID()).issuedAt(Person.now() + 5));
        assertNotNull(app.stored(alice.subject()));
    }

    @Test
    void anApplicationThatWasUsedBeforeTheSignOutServesNothingAfterIt() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        ConfidentialClientApplication longLived = app.application(app.tokenCache.forAccount(alice.subject()));
        SilentParameters parameters = Fixture.silentParameters(alice.subject(), Fixture.SCOPES, false);
        assertEquals(TokenSource.CACHE, source(() -> Fixture.get(longLived.acquireTokenSilently(parameters))));
        app.signOut(alice);
        assertThrows(SignedOutException.class, () -> Fixture.get(longLived.acquireTokenSilently(parameters)));
        // Not even for the next login, which is another session's.
        app.redeem(alice.withSid("sid-" + UUID.randomUUID()).issuedAt(Person.now() + 5));
        assertThrows(SignedOutException.class, () -> Fixture.get(longLived.acquireTokenSilently(parameters)));
        assertThrows(SignedOutException.class, () -> Fixture.get(longLived.getAccounts()));
    }

    @Test
    void aRefreshOfAnOldSessionNeverTouchesTheRowOfTheNextLogin() throws Exception {
        Person alice = Person.someone();
        Person next = alice.withSid("sid-" + UUID.randomUUID()).issuedAt(Person.now() + 5);
        app.redeem(alice);
        TokenEndpoint own = app.endpoint;
        own.beforeAnswer = grantType -> {
            own.beforeAnswer = ignored -> {};
            app.signOut(alice);
            redeemUnchecked(next);
        };
        assertThrows(SignedOutException.class, () -> app.silent(alice, Set.of("api-2"), true));
        Map<String, Object> token =
                CacheContents.entitiesOf(app.contents(alice.subject()), "RefreshToken").values().iterator().next();
        assertEquals(next.sid(), Person.decode((String) token.get("secret")).sid());
    }

    private void redeemUnchecked(Person person) {
        try {
            app.redeem(person);
        } catch (Exception failure) {
            throw new IllegalStateException(failure);
        }
    }

    @Test
    void concurrentRefreshesForDifferentScopesLoseNoToken() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        TokenEndpoint own = app.endpoint;
        own.beforeAnswer = grantType -> {
            own.beforeAnswer = ignored -> {};
            silentUnchecked(alice, Set.of("api-3"));
        };
        app.silent(alice, Set.of("api-2"), true);
        assertEquals(3, Fixture.targets(app.contents(alice.subject())).size());
        assertEquals(1, CacheContents.entitiesOf(app.contents(alice.subject()), "RefreshToken").size());
    }

    private void silentUnchecked(Person person, Set<String> scopes) {
        try {
            app.silent(person, scopes, true);
        } catch (Exception failure) {
            throw new IllegalStateException(failure);
        }
    }

    @Test
    void aConflictBetweenTheLoadAndTheSaveIsMerged() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        ITokenCacheAccessAspect aspect =
                before(app.tokenCache.forAccount(alice.subject()), () -> silentUnchecked(alice, Set.of("api-3")));
        app.silent(aspect, alice, Set.of("api-2"), true);
        assertEquals(3, Fixture.targets(app.contents(alice.subject())).size());
    }

    @Test
    void aFurtherSessionOfTheRowIsRegistered() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        String other = "sid-" + UUID.randomUUID();
        app.endpoint.change = (answer, claims) -> claims.put("sid", other);
        app.silent(alice, Set.of("api-2"), true);
        assertTrue(app.tokenCache.isSessionActive(alice.issuer(), other, alice.subject()));
        Fixture.signOut(other, null);
        assertNull(app.stored(alice.subject()));
    }

    @Test
    void aRefreshWhoseIdTokenHasNoSidAnyMoreLeavesTheSessionAsItIs() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        app.endpoint.change = (answer, claims) -> claims.remove("sid");
        app.silent(alice, Set.of("api-2"), true);
        app.silent(alice, Set.of("api-3"), true);
        assertEquals(
                List.of(Map.of("session_key", "sid=" + alice.sid())),
                app.query("select session_key from msal_logout.sessions where subject = ?", alice.subject()));
        assertEquals(List.of(), app.warnings);
    }

    @Test
    void aRefreshTokenThatIsRotatedWithoutAnIdTokenIsKept() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        app.endpoint.change = (answer, claims) -> answer.put("id_token", "");
        app.silent(alice, Set.of("api-2"), true);
        Map<String, Map<String, Object>> tokens =
                CacheContents.entitiesOf(app.contents(alice.subject()), "RefreshToken");
        assertEquals(1, tokens.size());
        Map<String, Object> token = tokens.values().iterator().next();
        assertEquals(alice.subject(), token.get("home_account_id"));
        app.endpoint.beforeAnswer = grantType -> {};
        String rotated = (String) token.get("secret");
        app.endpoint.change = (answer, claims) -> {};
        app.silent(alice, Set.of("api-3"), true);
        assertFalse(app.stored(alice.subject()).contains(rotated), "and was used, and replaced");
    }

    @Test
    void aSecondSignInOfTheSameAccountEndsNobody() throws Exception {
        Person alice = Person.someone();
        Person second = alice.withSid("sid-" + UUID.randomUUID());
        app.redeem(alice);
        app.redeem(second);
        assertTrue(app.tokenCache.isSessionActive(alice.session()));
        assertTrue(app.tokenCache.isSessionActive(second.session()));
    }

    @Test
    void aLoginWithoutASidIsWarnedOfOnceAndEndedByItsSubject() throws Exception {
        Person alice = Person.someone().withSid(null);
        app.redeem(alice);
        app.redeem(Person.someone().withSid(null));
        assertEquals(1, app.warnings.size());
        assertTrue(app.warnings.get(0).contains("optional claim \"sid\""), app.warnings.get(0));
        assertTrue(app.tokenCache.isSessionActive(alice.session()));
        app.signOut(alice);
        assertFalse(app.tokenCache.isSessionActive(alice.session()));
        assertNull(app.stored(alice.subject()));
    }

    @Test
    void anAccountIsRemovedByTheTokenCacheAndByMsal() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        assertTrue(app.tokenCache.removeAccount(alice.subject()));
        assertFalse(app.tokenCache.removeAccount(alice.subject()));
        assertFalse(app.tokenCache.isSessionActive(alice.session()));

        Person bob = Person.someone();
        app.redeem(bob);
        ConfidentialClientApplication application = app.application(app.tokenCache.forAccount(bob.subject()));
        IAccount account = Fixture.get(application.getAccounts()).iterator().next();
        Fixture.get(application.removeAccount(account));
        assertNull(app.stored(bob.subject()));
        assertEquals(Set.of(), Fixture.get(application.getAccounts()));
    }

    @Test
    void tokensOfTheAppItselfAreSharedAndSurviveASignOut() throws Exception {
        String partition = "client-a." + UUID.randomUUID();
        assertEquals(TokenSource.IDENTITY_PROVIDER, source(() -> app.appToken(app.tokenCache, partition, Set.of("s/.default"))));
        assertEquals(TokenSource.CACHE, source(() -> app.appToken(app.tokenCache, partition, Set.of("s/.default"))));
        assertEquals(TokenSource.IDENTITY_PROVIDER, source(() -> app.appToken(app.tokenCache, partition, Set.of("t/.default"))));
        assertEquals(TokenSource.CACHE, source(() -> app.appToken(app.tokenCache, partition, Set.of("s/.default"))));
    }

    @Test
    void onBehalfOfAUserATokenIsFoundAndASignOutDeletesIt() throws Exception {
        Person alice = Person.someone();
        String assertion = HEADER + alice.encode(Map.of("iss", alice.issuer())) + ".c2ln";
        assertEquals(TokenSource.IDENTITY_PROVIDER, source(() -> app.onBehalfOf(app.tokenCache, assertion, Fixture.SCOPES)));
        assertEquals(TokenSource.CACHE, source(() -> app.onBehalfOf(app.tokenCache, assertion, Fixture.SCOPES)));
        assertEquals(TokenSource.IDENTITY_PROVIDER, source(() -> app.onBehalfOf(app.tokenCache, assertion, Set.of("api-2"))));
        assertEquals(TokenSource.CACHE, source(() -> app.onBehalfOf(app.tokenCache, assertion, Set.of("api-2"))));
        assertEquals(
                List.of(Map.of("kind", "obo", "partition_key", Sources.partitionOf(assertion))),
                app.query("select kind, partition_key from msal_logout.token_cache where home_account_id = ?", alice.subject()));
        app.signOut(alice);
        assertNull(app.stored(Sources.partitionOf(assertion)));
    }

    @Test
    void anAssertionFromBeforeTheSignOutMakesNoRow() throws Exception {
        Person alice = Person.someone();
        String claims = Json.write(Map.of(
                "iss", alice.issuer(), "sub", alice.subject(), "iat", new Json.Literal(Long.toString(Person.now() - 5)),
                "homeAccountId", alice.subject(), "subject", alice.subject(), "sid", alice.sid(), "issuer", alice.issuer()));
        String assertion = HEADER + Person.base64(claims) + ".c2ln";
        app.onBehalfOf(app.tokenCache, assertion, Fixture.SCOPES);
        app.signOut(alice);
        assertThrows(SignedOutException.class, () -> app.onBehalfOf(app.tokenCache, assertion, Fixture.SCOPES));
        assertNull(app.stored(Sources.partitionOf(assertion)));
    }

    @Test
    void expiredAccessTokensAreNotKept() throws Exception {
        Person alice = Person.someone();
        app.endpoint.expiresInSeconds = -10;
        app.redeem(alice);
        assertEquals(List.of(), Fixture.targets(app.contents(alice.subject())));
        app.endpoint.expiresInSeconds = 3_600;
        assertEquals(TokenSource.IDENTITY_PROVIDER, source(() -> app.silent(alice, Fixture.SCOPES, false)));
    }

    @Test
    void anExpiredRefreshTokenAsksForASignIn() throws Exception {
        Person alice = Person.someone();
        app.redeem(alice);
        String before = app.stored(alice.subject());
        app.endpoint.error = "invalid_grant";
        Exception rejected = assertThrows(Exception.class, () -> app.silent(alice, Fixture.SCOPES, true));
        assertTrue(SharedTokenCache.isSignInRequired(rejected), rejected.toString());
        app.endpoint.error = "temporarily_unavailable";
        Exception busy = assertThrows(Exception.class, () -> app.silent(alice, Fixture.SCOPES, true));
        assertFalse(SharedTokenCache.isSignInRequired(busy));
        assertEquals(before, app.stored(alice.subject()));
        assertFalse(SharedTokenCache.isSignInRequired(null));
    }

    @Test
    void aLoginWhoseTokensAreElsewhereIsRegisteredAndSignedOut() throws Exception {
        Person alice = Person.someone().issuedAt(Person.now() - 5);
        app.redeem(alice);
        String tokens = app.stored(alice.subject());
        String idToken = Person.jwt(Map.of(
                "iss", alice.issuer(), "sub", alice.subject(), "sid", alice.sid(), "aud", Fixture.CLIENT_ID,
                "iat", new Json.Literal(Long.toString(alice.issuedAt()))));
        app.tokenCache.registerLogin(idToken, alice.subject());
        assertEquals(tokens, app.stored(alice.subject()), "beside tokens that are here");
        assertTrue(app.tokenCache.isRegistered(alice.subject()));
        assertTrue(app.tokenCache.isSessionActive(alice.session()));
        app.signOut(alice);
        assertFalse(app.tokenCache.isRegistered(alice.subject()));
        assertFalse(app.tokenCache.isSessionActive(alice.session()));
        assertThrows(SignedOutException.class, () -> app.tokenCache.registerLogin(idToken, alice.subject()));
        assertThrows(TokenCacheMisuseException.class, () -> app.tokenCache.registerLogin("x.y.z", alice.subject()));
    }
}
