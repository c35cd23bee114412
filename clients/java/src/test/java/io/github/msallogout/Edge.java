package io.github.msallogout;

import com.microsoft.aad.msal4j.IHttpClient;
import com.microsoft.aad.msal4j.IHttpResponse;
import java.io.IOException;
import java.net.Authenticator;
import java.net.CookieHandler;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.atomic.AtomicInteger;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;

/** The network's edge: what goes to the authority's host arrives at an endpoint of this machine, under the same path. */
final class Edge extends HttpClient {
    private static final HttpClient HTTP = HttpClient.newHttpClient();
    private final String endpoint;
    /** Requests to the token endpoint. */
    final AtomicInteger tokenRequests = new AtomicInteger();

    Edge(String endpoint) {
        this.endpoint = endpoint;
    }

    private record Answer(int statusCode, Map<String, List<String>> headers, String body) implements IHttpResponse {}

    /** For MSAL4J itself. */
    IHttpClient forMsal() {
        return request -> {
            HttpRequest.Builder sent = HttpRequest.newBuilder(request.url().toURI());
            request.headers().forEach(sent::setHeader);
            if (request.body() != null) {
                sent.POST(HttpRequest.BodyPublishers.ofString(request.body()));
            }
            HttpResponse<String> answer = send(sent.build(), HttpResponse.BodyHandlers.ofString());
            return new Answer(answer.statusCode(), answer.headers().map(), answer.body());
        };
    }

    @Override
    public <T> HttpResponse<T> send(HttpRequest request, HttpResponse.BodyHandler<T> handler)
            throws IOException, InterruptedException {
        if (request.uri().getPath().endsWith("/token")) {
            tokenRequests.incrementAndGet();
        }
        String query = request.uri().getRawQuery();
        URI uri = URI.create(endpoint + request.uri().getRawPath() + (query == null ? "" : "?" + query));
        HttpRequest.Builder moved = HttpRequest.newBuilder(uri)
                .method(request.method(), request.bodyPublisher().orElse(HttpRequest.BodyPublishers.noBody()));
        request.headers().map().forEach((name, values) -> values.forEach(value -> moved.header(name, value)));
        return HTTP.send(moved.build(), handler);
    }

    @Override
    public <T> CompletableFuture<HttpResponse<T>> sendAsync(HttpRequest request, HttpResponse.BodyHandler<T> handler) {
        throw new UnsupportedOperationException();
    }

    @Override
    public <T> CompletableFuture<HttpResponse<T>> sendAsync(
            HttpRequest request, HttpResponse.BodyHandler<T> handler, HttpResponse.PushPromiseHandler<T> pushes) {
        throw new UnsupportedOperationException();
    }

    @Override
    public Optional<CookieHandler> cookieHandler() {
        return HTTP.cookieHandler();
    }

    @Override
    public Optional<Duration> connectTimeout() {
        return HTTP.connectTimeout();
    }

    @Override
    public Redirect followRedirects() {
        return HTTP.followRedirects();
    }

    @Override
    public Optional<ProxySelector> proxy() {
        return HTTP.proxy();
    }

    @Override
    public SSLContext sslContext() {
        return HTTP.sslContext();
    }

    @Override
    public SSLParameters sslParameters() {
        return HTTP.sslParameters();
    }

    @Override
    public Optional<Authenticator> authenticator() {
        return HTTP.authenticator();
    }

    @Override
    public Version version() {
        return HTTP.version();
    }

    @Override
    public Optional<Executor> executor() {
        return HTTP.executor();
    }
}
