package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;
import java.io.ByteArrayOutputStream;
import java.io.ObjectOutputStream;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class SignOutFilterTest {
    private final Fixture app = new Fixture();
    private final List<String> events = new ArrayList<>();
    private final FilterChain chain = (request, response) -> events.add("served");

    @AfterEach
    void close() {
        app.close();
    }

    /** As much of a request as the filter uses; null attributes: it has no session. */
    private HttpServletRequest request(Map<String, Object> attributes) {
        return requestWith(attributes, events);
    }

    static HttpServletRequest requestWith(Map<String, Object> attributes) {
        return requestWith(attributes, new ArrayList<>());
    }

    private static HttpServletRequest requestWith(Map<String, Object> attributes, List<String> events) {
        HttpSession session = Proxies.of(HttpSession.class, (method, arguments) -> switch (method.getName()) {
            case "getAttribute" -> attributes.get((String) arguments[0]);
            case "setAttribute" -> attributes.put((String) arguments[0], arguments[1]);
            case "invalidate" -> {
                attributes.clear();
                yield events.add("invalidated");
            }
            default -> throw new UnsupportedOperationException(method.getName());
        });
        return Proxies.of(HttpServletRequest.class, (method, arguments) -> switch (method.getName()) {
            case "getSession" -> attributes == null ? null : session;
            case "logout" -> {
                events.add("logged out");
                yield null;
            }
            case "changeSessionId" -> {
                events.add("another id");
                yield "id";
            }
            default -> throw new UnsupportedOperationException(method.getName());
        });
    }

    private HttpServletResponse response(boolean isCommitted) {
        return Proxies.of(HttpServletResponse.class, (method, arguments) -> switch (method.getName()) {
            case "isCommitted" -> isCommitted;
            case "setHeader" -> {
                events.add(arguments[0] + ": " + arguments[1]);
                yield null;
            }
            case "sendError" -> {
                events.add("answered " + arguments[0]);
                yield null;
            }
            default -> throw new UnsupportedOperationException(method.getName());
        });
    }

    private HttpServletRequest requestOf(Person person) {
        HttpServletRequest request = request(new LinkedHashMap<>());
        SignOutFilter.remember(request, person.session());
        assertEquals(List.of("another id"), events);
        events.clear();
        return request;
    }

    @Test
    void aRequestOfNobodyPasses() throws Exception {
        SignOutFilter filter = new SignOutFilter(app.tokenCache);
        filter.doFilter(request(null), response(false), chain);
        filter.doFilter(request(new LinkedHashMap<>()), response(false), chain);
        filter.doFilter(
                Proxies.of(ServletRequest.class, (method, arguments) -> null),
                Proxies.of(ServletResponse.class, (method, arguments) -> null),
                chain);
        assertEquals(List.of("served", "served", "served"), events);
    }

    @Test
    void nothingOfAnotherPersonsSessionStaysAfterASignIn() {
        Person alice = Person.someone();
        HttpServletRequest request = requestOf(alice);
        request.getSession().setAttribute("basket", "alice's");
        SignOutFilter.remember(request, alice.withSid("another").session());
        assertEquals("alice's", request.getSession().getAttribute("basket"), "signed in again");
        SignedInSession bob = Person.someone().session();
        SignOutFilter.remember(request, bob);
        assertEquals(bob, SignOutFilter.remembered(request));
        assertNull(request.getSession().getAttribute("basket"));
        assertEquals(List.of("another id", "invalidated", "another id"), events);
    }

    @Test
    void theSessionEndsWithTheFirstRequestAfterTheSignOut() throws Exception {
        for (Person person : List.of(Person.someone(), Person.someone().withSid(null))) {
            app.redeem(person);
            HttpServletRequest request = requestOf(person);
            SignOutFilter filter = new SignOutFilter(app.tokenCache);
            filter.doFilter(request, response(false), chain);
            assertEquals(List.of("served"), events);
            app.signOut(person);
            events.clear();
            filter.doFilter(request, response(false), chain);
            assertEquals(List.of("invalidated", "logged out", "served"), events);
            events.clear();
        }
    }

    @Test
    void anAnswerEndsTheRequest() throws Exception {
        Person alice = Person.someone();
        SignOutFilter filter = new SignOutFilter(
                app.tokenCache,
                SignOutFilter::remembered,
                (request, response) -> events.add("sent to sign in"),
                SignOutFilter.WhenUnavailable.FAIL);
        filter.doFilter(requestOf(alice), response(true), chain);
        assertEquals(List.of("sent to sign in"), events);
    }

    @Test
    void whileTheDatabaseCannotBeAskedTheRequestFailsOrPassesAsTheAppChose() throws Exception {
        app.owner.close();
        for (SignOutFilter.WhenUnavailable choice : SignOutFilter.WhenUnavailable.values()) {
            events.clear();
            HttpServletRequest request = requestOf(Person.someone());
            new SignOutFilter(
                            app.tokenCache,
                            SignOutFilter::remembered,
                            (ended, response) -> events.add("ended"),
                            choice)
                    .doFilter(request, response(false), chain);
            assertEquals(
                    choice == SignOutFilter.WhenUnavailable.PASS
                            ? List.of("served")
                            : List.of("Retry-After: 5", "answered 503"),
                    events);
        }
    }

    @Test
    void whatTheSessionRemembersCanBeStoredWithIt() throws Exception {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
            out.writeObject(Person.someone().session());
        }
        assertTrue(bytes.size() > 0);
        String idToken = Person.jwt(Map.of(
                "iss", "https://i", "sub", "s", "sid", "the-sid", "iat", new Json.Literal("1795000000")));
        assertEquals(new SignedInSession("https://i", "the-sid", "s"), SignedInSession.of(idToken));
        assertFalse(SignedInSession.of(idToken).toString().contains(idToken));
    }
}
