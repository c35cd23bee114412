package io.github.msallogout;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeSet;

/** MSAL's serialized cache: five sections of entities by key, and the other members it may have. */
final class CacheContents {
    static final List<String> SECTIONS = List.of("Account", "IdToken", "AccessToken", "RefreshToken", "AppMetadata");

    private CacheContents() {}

    /** The accounts that are in it; app-only tokens belong to none. */
    static Set<String> accountsOf(Map<String, Object> contents) {
        Set<String> accounts = new LinkedHashSet<>();
        for (Map<String, Object> account : entitiesOf(contents, "Account").values()) {
            if (account.get("home_account_id") instanceof String id) {
                accounts.add(id);
            }
        }
        return accounts;
    }

    /** The sessions that the ID tokens of a client name. */
    static List<SessionClaims> sessionsOf(Map<String, Object> contents, String clientId) {
        List<SessionClaims> sessions = new ArrayList<>();
        for (Map<String, Object> idToken : entitiesOf(contents, "IdToken").values()) {
            SessionClaims session = SessionClaims.of(idToken.get("secret"), clientId);
            if (session != null) {
                sessions.add(session);
            }
        }
        return sessions;
    }

    /**
     * What may stand in the row of an account, and what MSAL may be shown of it: its own entities and no other's,
     * without access tokens that have expired.
     *
     * @param nowSeconds seconds since 1970; 0 keeps every access token
     */
    static Map<String, Object> own(Map<String, Object> contents, String homeAccountId, long nowSeconds) {
        return filter(contents, (section, entity) -> section.equals("AppMetadata")
                || homeAccountId.equals(entity.get("home_account_id")) && !isExpired(section, entity, nowSeconds));
    }

    /** Without access tokens that have expired. */
    static Map<String, Object> live(Map<String, Object> contents, long nowSeconds) {
        return filter(contents, (section, entity) -> !isExpired(section, entity, nowSeconds));
    }

    private interface Rule {
        boolean keeps(String section, Map<String, Object> entity);
    }

    private static Map<String, Object> filter(Map<String, Object> contents, Rule rule) {
        Map<String, Object> kept = new LinkedHashMap<>(contents);
        for (String section : SECTIONS) {
            Map<String, Object> entities = new LinkedHashMap<>();
            entitiesOf(contents, section).forEach((key, entity) -> {
                if (rule.keeps(section, entity)) {
                    entities.put(key, entity);
                }
            });
            kept.put(section, entities);
        }
        return kept;
    }

    private static boolean isExpired(String section, Map<String, Object> entity, long nowSeconds) {
        return section.equals("AccessToken") && secondsOf(entity.get("expires_on")) <= nowSeconds;
    }

    /** NaN where it is no number. */
    private static double secondsOf(Object value) {
        String text = value instanceof Json.Literal literal ? literal.text() : value instanceof String string ? string : "";
        try {
            return Double.parseDouble(text.trim());
        } catch (NumberFormatException notNumber) {
            return Double.NaN;
        }
    }

    /** Our changes since {@code base}, put onto what is stored now, entity by entity. */
    static Map<String, Object> merge(Map<String, Object> base, Map<String, Object> ours, Map<String, Object> theirs) {
        Map<String, Object> merged = new LinkedHashMap<>(theirs);
        for (String section : SECTIONS) {
            Map<String, Map<String, Object>> before = entitiesOf(base, section);
            Map<String, Map<String, Object>> mine = entitiesOf(ours, section);
            Map<String, Map<String, Object>> result = entitiesOf(theirs, section);
            for (String key : union(before.keySet(), mine.keySet())) {
                Map<String, Object> entity = mine.get(key);
                if (Objects.equals(entity, before.get(key))) {
                    continue;
                }
                if (entity == null) {
                    result.remove(key);
                } else {
                    result.put(key, entity);
                    removeDoubles(section, key, entity, result);
                }
            }
            merged.put(section, result);
        }
        return merged;
    }

    /** A row holds one of each: libraries have keys of their own for the same token, and an old one is no spare. */
    private static void removeDoubles(
            String section, String key, Map<String, Object> entity, Map<String, Map<String, Object>> entities) {
        List<Object> identity = identityOf(section, entity);
        if (identity != null) {
            entities.entrySet()
                    .removeIf(other -> !other.getKey().equals(key) && identity.equals(identityOf(section, other.getValue())));
        }
    }

    /**
     * What makes two entities of a row the same, whichever library has stored them; null where the key alone does. A row
     * belongs to one cloud: the environment, for which libraries use several names, is no part of it.
     */
    private static List<Object> identityOf(String section, Map<String, Object> entity) {
        if (entity.get("client_id") == null || section.equals("AccessToken") && entity.get("target") == null) {
            return null;
        }
        Object account = entity.get("home_account_id");
        return switch (section) {
            case "RefreshToken" -> {
                Object family = entity.get("family_id");
                boolean isFamily = family instanceof String id && !id.isEmpty();
                yield Arrays.asList(account, isFamily ? "family" : "client", isFamily ? family : entity.get("client_id"));
            }
            case "IdToken" -> Arrays.asList(account, entity.get("client_id"), issuerOf(entity));
            case "AccessToken" ->
                Arrays.asList(
                        account,
                        entity.get("client_id"),
                        textOf(entity, "realm"),
                        scopesOf(entity.get("target")),
                        tokenTypeOf(entity),
                        firstOf(entity, "user_assertion_hash", "userAssertionHash"),
                        textOf(entity, "requestedClaimsHash"),
                        firstOf(entity, "ext_cache_key_hash", "additionalCacheKeyComponents"),
                        firstOf(entity, "key_id", "keyId"),
                        textOf(entity, "resource"));
            case "AppMetadata" -> List.of(entity.get("client_id")); // MSAL Node fails on two
            default -> null;
        };
    }

    /** Of a provider without tenants each library makes up another realm; a guest's tokens have several issuers. */
    private static Object issuerOf(Map<String, Object> idToken) {
        Map<String, Object> claims = SessionClaims.decode(idToken.get("secret"));
        Object issuer = claims == null ? null : claims.get("iss");
        return issuer == null ? textOf(idToken, "realm") : issuer;
    }

    static Set<String> scopesOf(Object target) {
        Set<String> scopes = new TreeSet<>();
        if (target instanceof String text) {
            scopes.addAll(Arrays.asList(text.toLowerCase(Locale.ROOT).trim().split("\\s+")));
        }
        return scopes;
    }

    private static String tokenTypeOf(Map<String, Object> entity) {
        String type = textOf(entity, "token_type");
        return type.isEmpty() ? "bearer" : type.toLowerCase(Locale.ROOT);
    }

    private static String firstOf(Map<String, Object> entity, String name, String otherName) {
        String value = textOf(entity, name);
        return value.isEmpty() ? textOf(entity, otherName) : value;
    }

    private static String textOf(Map<String, Object> entity, String name) {
        Object value = entity.get(name);
        return value == null ? "" : value instanceof String text ? text : Json.write(value);
    }

    /** The entities of a section that are objects, in a map of their own. */
    static Map<String, Map<String, Object>> entitiesOf(Map<String, Object> contents, String section) {
        Map<String, Map<String, Object>> entities = new LinkedHashMap<>();
        Map<String, Object> values = Json.asObject(contents.get(section));
        if (values != null) {
            values.forEach((key, value) -> {
                Map<String, Object> entity = Json.asObject(value);
                if (entity != null) {
                    entities.put(key, entity);
                }
            });
        }
        return entities;
    }

    /** Whether an entity that MSAL4J can make use of, which is every bearer token. */
    static boolean isBearer(Map<String, Object> entity) {
        return tokenTypeOf(entity).equals("bearer");
    }

    static Set<String> union(Set<String> a, Set<String> b) {
        Set<String> all = new LinkedHashSet<>(a);
        all.addAll(b);
        return all;
    }
}
