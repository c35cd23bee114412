package io.github.msallogout;

import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;
import java.io.IOException;
import java.util.function.Function;

/**
 * Ends the app's own session with the first request after a sign-out, in every process: one indexed look-up for each
 * request of a signed-in user. The request goes on as nobody's.
 *
 * <p>After the code is redeemed the app says who has signed in:
 *
 * <pre>{@code
 * SignOutFilter.remember(request, SignedInSession.of(result.idToken()));
 * }</pre>
 */
public final class SignOutFilter implements Filter {
    /** Where {@link #remember} keeps the session: an attribute of the {@link HttpSession}. */
    public static final String SESSION_ATTRIBUTE = "io.github.msallogout.session";

    private static final String RETRY_SECONDS = "5";

    /** What is done with a request of a signed-in user while the database cannot be asked. */
    public enum WhenUnavailable {
        /** It is answered by 503: nobody knows whether the user was signed out. */
        FAIL,
        /** It is served as if the user were signed in: a sign-out is obeyed only when the database is back. */
        PASS
    }

    /** Ends the app's own session. */
    @FunctionalInterface
    public interface SessionEnd {
        /**
         * Ends it, and may answer; a request that was not answered goes on.
         *
         * @param request the first one after the sign-out
         * @param response its answer
         * @throws IOException as answering does
         * @throws ServletException as answering does
         */
        void end(HttpServletRequest request, HttpServletResponse response) throws IOException, ServletException;
    }

    private final SharedTokenCache tokenCache;
    private final Function<HttpServletRequest, SignedInSession> session;
    private final SessionEnd end;
    private final WhenUnavailable whenUnavailable;

    /**
     * A filter for apps that {@link #remember} who has signed in; it ends the {@link HttpSession}.
     *
     * @param tokenCache the app's token cache
     * @throws TokenCacheMisuseException where it is null
     */
    public SignOutFilter(SharedTokenCache tokenCache) {
        this(tokenCache, SignOutFilter::remembered, SignOutFilter::invalidate, WhenUnavailable.FAIL);
    }

    /**
     * A filter for apps that keep their sessions elsewhere.
     *
     * @param tokenCache the app's token cache
     * @param session the session that a request belongs to; null: nobody is signed in, and the request passes
     * @param end ends the app's own session
     * @param whenUnavailable what is done while the database cannot be asked
     * @throws TokenCacheMisuseException where one of them is null
     */
    public SignOutFilter(
            SharedTokenCache tokenCache,
            Function<HttpServletRequest, SignedInSession> session,
            SessionEnd end,
            WhenUnavailable whenUnavailable) {
        this.tokenCache = SharedTokenCache.require(tokenCache, "a token cache", "pass the app's");
        this.session = SharedTokenCache.require(session, "a function", "pass what finds the session of a request");
        this.end = SharedTokenCache.require(end, "an end", "pass what ends the app's own session");
        this.whenUnavailable = SharedTokenCache.require(whenUnavailable, "a choice", "pass FAIL or PASS");
    }

    /**
     * Remembers in the {@link HttpSession} who has signed in, under a new session id: one that was known before the sign-in is
     * worth nothing afterwards. Where somebody else was signed in, nothing of that person's session stays.
     *
     * @param request the one at the redirect URI
     * @param signedIn the session of the ID token
     * @throws TokenCacheMisuseException where it is null
     */
    public static void remember(HttpServletRequest request, SignedInSession signedIn) {
        SharedTokenCache.require(signedIn, "a session", "pass SignedInSession.of(result.idToken())");
        SignedInSession former = remembered(request);
        if (former != null && !former.isOfSameUser(signedIn)) {
            request.getSession().invalidate();
        }
        HttpSession httpSession = request.getSession();
        request.changeSessionId();
        httpSession.setAttribute(SESSION_ATTRIBUTE, signedIn);
    }

    /**
     * Who has signed in, as {@link #remember} has it.
     *
     * @param request any
     * @return the session, or null where nobody is signed in
     */
    public static SignedInSession remembered(HttpServletRequest request) {
        HttpSession httpSession = request.getSession(false);
        return httpSession == null ? null : (SignedInSession) httpSession.getAttribute(SESSION_ATTRIBUTE);
    }

    @Override
    public void doFilter(ServletRequest request, ServletResponse response, FilterChain chain)
            throws IOException, ServletException {
        if (request instanceof HttpServletRequest http && response instanceof HttpServletResponse answer) {
            SignedInSession current = session.apply(http);
            if (current != null && !mayGoOn(current, http, answer)) {
                return;
            }
        }
        chain.doFilter(request, response);
    }

    private boolean mayGoOn(SignedInSession current, HttpServletRequest request, HttpServletResponse response)
            throws IOException, ServletException {
        try {
            if (tokenCache.isSessionActive(current)) {
                return true;
            }
        } catch (TokenCacheDatabaseException unavailable) {
            if (whenUnavailable == WhenUnavailable.PASS) {
                return true;
            }
            response.setHeader("Retry-After", RETRY_SECONDS);
            response.sendError(HttpServletResponse.SC_SERVICE_UNAVAILABLE);
            return false;
        }
        end.end(request, response);
        return !response.isCommitted();
    }

    private static void invalidate(HttpServletRequest request, HttpServletResponse response) throws ServletException {
        HttpSession httpSession = request.getSession(false);
        if (httpSession != null) {
            httpSession.invalidate();
        }
        request.logout(); // else the container, or Spring Security, still knows a user while this request is served
    }
}
