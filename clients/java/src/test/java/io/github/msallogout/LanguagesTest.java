package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.aad.msal4j.ConfidentialClientApplication;
import com.microsoft.aad.msal4j.OnBehalfOfParameters;
import com.microsoft.aad.msal4j.SilentParameters;
import com.microsoft.aad.msal4j.UserAssertion;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Rows as MSAL Node 7.2 and MSAL Python 1.36 write them, used and written by Java. */
class LanguagesTest {
    private static final String TENANT = "7e0a3c5e-0000-4000-8000-000000000001";
    private static final String ENTRA = "https://login.microsoftonline.com/" + TENANT + "/";

    private final Fixture app = new Fixture();
    private final String account = "uid-" + UUID.randomUUID() + "." + TENANT;
    private final Person alice =
            new Person(account, "sub-" + UUID.randomUUID(), "sid-" + UUID.randomUUID(), null, Person.ISSUER);

    @AfterEach
    void close() {
        app.close();
    }

    private String idToken() {
        return Person.jwt(Map.of(
                "iss", alice.issuer(), "sub", alice.subject(), "sid", alice.sid(), "aud", Fixture.CLIENT_ID, "tid", TENANT,
                "iat", new Json.Literal(Long.toString(Person.now()))));
    }

    private String in(String text) {
        return text.replace("HOME", account)
                .replace("TENANT", TENANT)
                .replace("ID_TOKEN", idToken())
                .replace("REFRESH", alice.encode(Map.of()))
                .replace("SOON", Long.toString(Person.now() + 3_600));
    }

    private void store(String contents) {
        SessionClaims session =
                new SessionClaims(alice.issuer(), alice.sid(), alice.subject(), Person.now(), null, TENANT);
        CacheRows rows = new CacheRows(new Database(app.owner, Duration.ofSeconds(5)), Fixture.CLIENT_ID, Duration.ofDays(1));
        assertNotNull(rows.login(
                new CacheRows.Login(account, account, session, "user"),
                new PayloadCodec(null).encode(contents, new PayloadCodec.Place("", "", ""))));
    }

    private int askedFor(Set<String> scopes) throws Exception {
        int before = app.endpoint.requests.get();
        ConfidentialClientApplication application =
                app.application(app.tokenCache.forAccount(account), ENTRA, Fixture.CLIENT_ID);
        var found = Fixture.get(application.getAccounts());
        assertEquals(1, found.size());
        Fixture.get(application.acquireTokenSilently(SilentParameters.builder(scopes, found.iterator().next()).build()));
        return app.endpoint.requests.get() - before;
    }

    private Collection<Map<String, Object>> entities(String section) {
        return CacheContents.entitiesOf(app.contents(account), section).values();
    }

    private static final String NODE = """
            {"Account":{"HOME-login.windows.net-TENANT":{"home_account_id":"HOME","environment":"login.windows.net","realm":"TENANT",
            "local_account_id":"oid","username":"ann@contoso.com","authority_type":"MSSTS","name":"Ann","client_info":"e30",
            "tenantProfiles":["{\\"tenantId\\":\\"TENANT\\"}"]}},
            "IdToken":{"HOME-login.windows.net-idtoken-client-a-TENANT--":{"home_account_id":"HOME","environment":"login.windows.net",
            "credential_type":"IdToken","client_id":"client-a","secret":"ID_TOKEN","realm":"TENANT"}},
            "AccessToken":{"HOME-login.windows.net-accesstoken-client-a-TENANT-api-1-":{"home_account_id":"HOME",
            "environment":"login.windows.net","credential_type":"AccessToken","client_id":"client-a","secret":"at-node","realm":"TENANT",
            "target":"api-1 openid profile offline_access","cached_at":"1","expires_on":"SOON","extended_expires_on":"SOON",
            "token_type":"Bearer"},"pop":{"home_account_id":"HOME","environment":"login.windows.net",
            "credential_type":"AccessToken_With_AuthScheme","client_id":"client-a","secret":"at-pop","realm":"TENANT","target":"api-pop",
            "cached_at":"1","expires_on":"SOON","token_type":"pop","keyId":"k"}},
            "RefreshToken":{"HOME-login.windows.net-refreshtoken-client-a---":{"home_account_id":"HOME","environment":"login.windows.net",
            "credential_type":"RefreshToken","client_id":"client-a","secret":"REFRESH"}},"AppMetadata":{},"X_other":{"kept":true}}
            """;

    private static final String PYTHON = """
            {"Account":{"HOME-login.microsoftonline.com-TENANT":{"home_account_id":"HOME","environment":"login.microsoftonline.com",
            "realm":"TENANT","local_account_id":"oid","username":"ann@contoso.com","authority_type":"MSSTS","account_source":"code"}},
            "IdToken":{"HOME-login.microsoftonline.com-idtoken-client-a-TENANT-":{"credential_type":"IdToken","secret":"ID_TOKEN",
            "home_account_id":"HOME","environment":"login.microsoftonline.com","realm":"TENANT","client_id":"client-a"}},
            "AccessToken":{"HOME-login.microsoftonline.com-accesstoken-client-a-TENANT-api-1":{"credential_type":"AccessToken",
            "secret":"at-python","home_account_id":"HOME","environment":"login.microsoftonline.com","client_id":"client-a",
            "target":"api-1 openid profile offline_access","realm":"TENANT","token_type":"Bearer","cached_at":"1","expires_on":"SOON",
            "extended_expires_on":"SOON"}},
            "RefreshToken":{"HOME-login.microsoftonline.com-refreshtoken-client-a--api-1":{"credential_type":"RefreshToken",
            "secret":"REFRESH","home_account_id":"HOME","environment":"login.microsoftonline.com","client_id":"client-a",
            "target":"api-1","last_modification_time":"1"}},
            "AppMetadata":{"appmetadata-login.microsoftonline.com-client-a":{"client_id":"client-a",
            "environment":"login.microsoftonline.com"}}}
            """;

    @Test
    void whatNodeWroteIsUsedAndLosesNothing() throws Exception {
        store(in(NODE));
        assertEquals(0, askedFor(Fixture.SCOPES), "from the cache");
        assertEquals(1, askedFor(Set.of("api-2")), "by the refresh token");
        assertEquals(
                List.of("at-node", "at-pop"),
                entities("AccessToken").stream()
                        .map(token -> (String) token.get("secret"))
                        .filter(secret -> secret.matches("at-(node|pop)"))
                        .toList());
        Map<String, Object> stored = entities("Account").iterator().next();
        assertEquals(1, entities("Account").size());
        assertEquals(List.of("{\"tenantId\":\"TENANT\"}".replace("TENANT", TENANT)), stored.get("tenantProfiles"));
        assertEquals(1, entities("RefreshToken").size(), "one refresh token");
        assertEquals(1, entities("IdToken").size(), "one ID token");
        assertEquals(Map.of("kept", true), app.contents(account).get("X_other"));
    }

    @Test
    void aTokenWithProofOfPossessionIsNotHandedOutAsABearersOwn() throws Exception {
        store(in(NODE));
        assertEquals(1, askedFor(Set.of("api-pop")));
        assertTrue(entities("AccessToken").stream().anyMatch(token -> "at-pop".equals(token.get("secret"))));
    }

    @Test
    void whatPythonWroteIsUsedAndLosesNothing() throws Exception {
        store(in(PYTHON));
        assertEquals(0, askedFor(Fixture.SCOPES), "from the cache");
        assertEquals(1, askedFor(Set.of("api-2")), "by the refresh token");
        assertTrue(entities("Account").stream().anyMatch(stored -> "code".equals(stored.get("account_source"))));
        assertEquals(1, entities("RefreshToken").size(), "one refresh token");
        assertEquals(1, entities("IdToken").size(), "one ID token");
        assertEquals(1, askedFor(Set.of("api-3")), "and the new one is used");
    }

    @Test
    void entitiesThatMsal4jWouldFailOnStayInTheRow() throws Exception {
        store(in(NODE).replaceFirst(
                "\"RefreshToken\":\\{",
                "\"RefreshToken\":{\"odd\":{\"home_account_id\":\"" + account + "\",\"environment\":\"login.windows.net\"},"));
        String odd = in("""
                {"Account":{},"IdToken":{},"AccessToken":{"a":{"home_account_id":"HOME"},"b":{"home_account_id":"HOME","environment":"e",
                "client_id":"client-a","secret":"s","target":"t","expires_on":"never"},"c":{"home_account_id":"HOME","environment":"e",
                "client_id":"client-a","secret":"s","target":"t","expires_on":1795000000,"refresh_on":"x","realm":null}},"AppMetadata":{"m":{}}}
                """);
        Map<String, Object> shown = Json.parseObject(MsalView.show(Json.parseObject(odd)));
        assertEquals(Set.of("c"), CacheContents.entitiesOf(shown, "AccessToken").keySet());
        Map<String, Object> c = CacheContents.entitiesOf(shown, "AccessToken").get("c");
        assertEquals("1795000000", c.get("expires_on"));
        assertEquals("", c.get("realm"));
        assertEquals(null, c.get("refresh_on"));
        assertEquals(0, askedFor(Fixture.SCOPES));
        assertEquals(1, askedFor(Set.of("api-2")));
        assertEquals(2, entities("RefreshToken").size(), "the odd one, and the new one");
    }

    @Test
    void onBehalfOfAUserNodesTokensAreFoundAndPythonsAreAskedForOnceMore() throws Exception {
        for (String hash : List.of("\"userAssertionHash\":\"HASH\",", "")) {
            String assertion = Person.base64("{\"alg\":\"RS256\"}") + "." + alice.encode(Map.of("n", UUID.randomUUID().toString())) + ".c2ln";
            String partition = Sources.partitionOf(assertion);
            SessionClaims session =
                    new SessionClaims(alice.issuer(), alice.sid(), alice.subject(), Person.now(), null, TENANT);
            String contents = in(NODE).replace("\"secret\":\"at-node\",", hash.replace("HASH", partition) + "\"secret\":\"at-node\",");
            new CacheRows(new Database(app.owner, Duration.ofSeconds(5)), Fixture.CLIENT_ID, Duration.ofDays(1))
                    .login(
                            new CacheRows.Login(partition, account, session, "obo"),
                            new PayloadCodec(null).encode(contents, new PayloadCodec.Place("", "", "")));
            for (int expected : hash.isEmpty() ? new int[] {1, 0} : new int[] {0, 0}) {
                int before = app.endpoint.requests.get();
                Fixture.get(app.application(app.tokenCache.forAssertion(assertion), ENTRA, Fixture.CLIENT_ID)
                        .acquireToken(OnBehalfOfParameters.builder(Fixture.SCOPES, new UserAssertion(assertion)).build()));
                assertEquals(expected, app.endpoint.requests.get() - before);
            }
        }
    }
}
