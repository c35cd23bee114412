"""MSAL's way to the provider."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from msal_logout import HttpClient, oidc_authority


class Site(http.server.ThreadingHTTPServer):
    """Answers with what a test wants, and counts."""

    body = b"{}"
    status = 200
    requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/.well-known/openid-configuration"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(("127.0.0.1", 0), Handler) as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        yield site
        site.shutdown()
        thread.join()


def test_a_document_is_asked_for_once(site: Site) -> None:
    client = HttpClient()
    assert [client.get(site.url).json() for _ in range(3)] == [{}] * 3
    assert site.requests == 1
    client.get(site.url, params={"other": "one"})
    assert site.requests == 2


@pytest.mark.parametrize(("status", "body"), [(503, b"{}"), (200, b"<p>maintenance</p>"), (200, b"[]"), (200, b"")])
def test_what_is_no_document_is_asked_for_again(site: Site, status: int, body: bytes) -> None:
    client = HttpClient()
    site.status, site.body = status, body
    assert client.get(site.url).status_code == status
    site.status, site.body = 200, b'{"issuer": "x"}'
    assert client.get(site.url).json() == {"issuer": "x"}


def test_an_authority_has_a_path() -> None:
    assert oidc_authority("https://login.example.com/") == "https://login.example.com/."
    assert oidc_authority("https://login.example.com/realms/a") == "https://login.example.com/realms/a"
