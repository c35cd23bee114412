package io.github.msallogout;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * What MSAL4J is shown of a row, and what it has made of it. A row may come from another language: MSAL4J fails on entities
 * that lack what it counts on, drops members that it does not know, and has a place of its own for the tokens of a provider
 * that is not Microsoft's. Nothing is lost by passing through here, and what is stored is what the others look for.
 */
final class MsalView {
    /** What MSAL4J asks of an entity without looking whether it is there. */
    private static final Map<String, List<String>> NEEDED = Map.of(
            "Account", List.of("home_account_id", "environment"),
            "IdToken", List.of("environment", "client_id", "secret"),
            "AccessToken", List.of("environment", "client_id", "secret", "target", "expires_on"),
            "RefreshToken", List.of("environment", "client_id", "secret"),
            "AppMetadata", List.of("environment", "client_id"));

    /** What MSAL Node asks of an account. */
    private static final List<String> NEEDED_BY_OTHERS = List.of("realm", "local_account_id", "username", "name");

    /** The realm under which MSAL4J looks for tokens of an {@link OpenIdProvider}. */
    private static final String OPENID_REALM = "adfs";

    private MsalView() {}

    /** The text that MSAL4J deserializes. */
    static String show(Map<String, Object> contents) {
        Map<String, Object> shown = new LinkedHashMap<>();
        for (String section : CacheContents.SECTIONS) {
            Map<String, Object> entities = new LinkedHashMap<>();
            CacheContents.entitiesOf(contents, section).forEach((key, entity) -> {
                Map<String, Object> translated = translate(section, entity);
                if (translated != null) {
                    entities.put(key, translated);
                }
            });
            shown.put(section, entities);
        }
        return Json.write(shown);
    }

    /** Null where MSAL4J can make no use of it. */
    private static Map<String, Object> translate(String section, Map<String, Object> entity) {
        Map<String, Object> shown = new LinkedHashMap<>();
        entity.forEach((name, value) -> {
            if (value instanceof String) {
                shown.put(name, value);
            } else if (value instanceof Json.Literal number) {
                shown.put(name, number.text());
            }
        });
        if (!shown.keySet().containsAll(NEEDED.get(section))) {
            return null;
        }
        if (hasRealm(section)) {
            if (isOpenId(entity)) {
                shown.put("realm", OPENID_REALM);
            } else {
                shown.putIfAbsent("realm", "");
            }
        }
        if (section.equals("AccessToken")) {
            if (!CacheContents.isBearer(entity) || !isWhole(shown.get("expires_on"))) {
                return null;
            }
            shown.computeIfPresent("refresh_on", (name, value) -> isWhole(value) ? value : null);
        }
        if (shown.get("userAssertionHash") instanceof String hash) { // as MSAL Node writes it
            shown.putIfAbsent("user_assertion_hash", hash);
        }
        return shown;
    }

    private static boolean hasRealm(String section) {
        return section.equals("IdToken") || section.equals("AccessToken");
    }

    private static boolean isWhole(Object value) {
        return value instanceof String text && text.matches("-?[0-9]{1,18}");
    }

    /** What MSAL4J has in memory. A member that is null is one that is not there. */
    static Map<String, Object> read(String serialized) {
        Map<String, Object> contents = Json.parseObject(serialized);
        if (contents == null) {
            throw new IllegalStateException("this version of MSAL4J serializes its cache as something that is no JSON object");
        }
        for (String section : CacheContents.SECTIONS) {
            CacheContents.entitiesOf(contents, section).values().forEach(entity -> entity.values().removeIf(value -> value == null));
        }
        return contents;
    }

    /**
     * The row with MSAL4J's changes.
     *
     * @param base the row as it was loaded
     * @param before what MSAL4J had in memory before its work
     * @param after what it has now
     * @param homeAccountId whose row it is; null for an app's
     */
    static Map<String, Object> apply(
            Map<String, Object> base, Map<String, Object> before, Map<String, Object> after, String homeAccountId) {
        Map<String, Object> ours = new LinkedHashMap<>(base);
        for (String section : CacheContents.SECTIONS) {
            Map<String, Map<String, Object>> was = CacheContents.entitiesOf(before, section);
            Map<String, Map<String, Object>> is = CacheContents.entitiesOf(after, section);
            Map<String, Map<String, Object>> result = CacheContents.entitiesOf(base, section);
            for (String key : CacheContents.union(was.keySet(), is.keySet())) {
                Map<String, Object> entity = is.get(key);
                if (entity == null) {
                    result.remove(key);
                } else if (!entity.equals(was.get(key))) {
                    Map<String, Object> changed = new LinkedHashMap<>(entity);
                    keepUnknown(changed, was.get(key), result.get(key));
                    switch (section) {
                        case "Account" -> putAccount(result, key, changed, after);
                        case "RefreshToken" -> result.put(adopt(key, changed, homeAccountId), changed);
                        default -> result.put(key, withRealm(section, changed, base));
                    }
                }
            }
            ours.put(section, result);
        }
        return ours;
    }

    /** Members that another library has stored, and MSAL4J does not have in its memory. */
    private static void keepUnknown(Map<String, Object> entity, Map<String, Object> was, Map<String, Object> stored) {
        if (was != null && stored != null) {
            stored.forEach((name, value) -> {
                if (!was.containsKey(name)) {
                    entity.putIfAbsent(name, value);
                }
            });
        }
    }

    /** An account as the other libraries store it, who do without none of these members, and in one place. */
    private static void putAccount(
            Map<String, Map<String, Object>> accounts, String key, Map<String, Object> account, Map<String, Object> after) {
        String storedKey = accounts.containsKey(key) || !isOpenId(account) ? key : keyOfSame(accounts, account, key);
        Map<String, Object> stored = accounts.get(storedKey);
        Map<String, Object> claims = claimsOf(after, account.get("home_account_id"));
        if (isOpenId(account)) {
            account.put("authority_type", "Generic");
            account.put("realm", tenantOf(claims));
            putText(account, "local_account_id", claims.getOrDefault("oid", claims.get("sub")));
            putText(account, "username", claims.get("preferred_username"));
            putText(account, "name", claims.get("name"));
        }
        if (stored != null) {
            stored.forEach(account::putIfAbsent);
            for (String name : List.of("authority_type", "realm")) {
                account.replace(name, stored.getOrDefault(name, account.get(name)));
            }
        }
        NEEDED_BY_OTHERS.forEach(name -> account.putIfAbsent(name, ""));
        if (isOpenId(account)) {
            account.putIfAbsent("tenantProfiles", List.of(profileOf(account))); // without it MSAL Node finds no account
        }
        accounts.put(storedKey, account);
    }

    /** As MSAL Node writes it: a text of JSON. */
    private static String profileOf(Map<String, Object> account) {
        Map<String, Object> profile = new LinkedHashMap<>();
        profile.put("tenantId", account.get("realm"));
        profile.put("localAccountId", account.get("local_account_id"));
        profile.put("username", account.get("username"));
        profile.put("isHomeTenant", ((String) account.get("home_account_id")).endsWith("." + account.get("realm")));
        return Json.write(profile);
    }

    /** Another library's key for the same account at an OpenID provider, which has one of each. */
    private static String keyOfSame(
            Map<String, Map<String, Object>> accounts, Map<String, Object> account, String key) {
        return accounts.entrySet().stream()
                .filter(other -> account.get("home_account_id").equals(other.getValue().get("home_account_id"))
                        && account.get("environment").equals(other.getValue().get("environment")))
                .map(Map.Entry::getKey)
                .findFirst()
                .orElse(key);
    }

    private static void putText(Map<String, Object> account, String name, Object claim) {
        if (claim instanceof String text) {
            account.putIfAbsent(name, text);
        }
    }

    private static Map<String, Object> withRealm(String section, Map<String, Object> entity, Map<String, Object> base) {
        if (section.equals("IdToken") && isOpenId(entity)) {
            Map<String, Object> claims = SessionClaims.decode(entity.get("secret"));
            entity.put("realm", tenantOf(claims == null ? Map.of() : claims));
        } else if (section.equals("AccessToken") && isOpenId(entity)) {
            entity.put("realm", realmOf(base, entity));
        }
        return entity;
    }

    /**
     * Where a refresh is answered without an ID token (OpenID Connect Core 1.0 §12.2 allows it), MSAL4J stores the new
     * refresh token without its account, and would not find it again. (Access tokens without an account may be the app's.)
     */
    private static String adopt(String key, Map<String, Object> entity, String homeAccountId) {
        if (homeAccountId == null || entity.get("home_account_id") != null) {
            return key;
        }
        entity.put("home_account_id", homeAccountId);
        return homeAccountId.toLowerCase(Locale.ROOT) + key; // it begins with the separator
    }

    private static boolean isOpenId(Map<String, Object> entity) {
        return OpenIdProvider.tenantOf(entity.get("environment")) != null;
    }

    /** The claims of an account's ID token; none where there is none. */
    private static Map<String, Object> claimsOf(Map<String, Object> contents, Object homeAccountId) {
        for (Map<String, Object> idToken : CacheContents.entitiesOf(contents, "IdToken").values()) {
            if (homeAccountId != null && homeAccountId.equals(idToken.get("home_account_id"))) {
                Map<String, Object> claims = SessionClaims.decode(idToken.get("secret"));
                if (claims != null) {
                    return claims;
                }
            }
        }
        return Map.of();
    }

    /** The realm of MSAL Node's accounts and ID tokens. */
    private static String tenantOf(Map<String, Object> claims) {
        return claims.get("tid") instanceof String tenant ? tenant : "";
    }

    /** The realm of access tokens: as the row's have it already, else as MSAL Node will look for it. */
    private static String realmOf(Map<String, Object> base, Map<String, Object> accessToken) {
        return CacheContents.entitiesOf(base, "AccessToken").values().stream()
                .filter(other -> accessToken.get("environment").equals(other.get("environment")))
                .map(other -> other.get("realm"))
                .filter(String.class::isInstance)
                .map(String.class::cast)
                .findFirst()
                .orElseGet(() -> OpenIdProvider.tenantOf(accessToken.get("environment")));
    }
}
