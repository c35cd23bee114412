"""MSAL's way to the provider, for apps that make an MSAL application for each operation."""

from __future__ import annotations

import threading
import time
from typing import Any

import requests

_DISCOVERY_SECONDS = 24 * 60 * 60
_MAX_DOCUMENTS = 100


class HttpClient:
    """The ``http_client`` of all MSAL applications of a process. MSAL fetches the provider's discovery document for
    each application anew, and waits for answers without a limit; this one keeps the document for a day, connections
    open, and gives up in time. Threads may share it.

    :param timeout: seconds to wait for a connection, and for the next bytes of an answer; 10
    :param verify: as of ``requests``: ``True``, or the path of a file of certificates
    :param proxies: as of ``requests``; by default the environment's
    """

    def __init__(
        self, *, timeout: float = 10.0, verify: bool | str = True, proxies: dict[str, str] | None = None
    ) -> None:
        self._timeout = timeout
        self._verify = verify
        self._proxies = proxies
        self._sessions = threading.local()
        self._lock = threading.Lock()
        self._documents: dict[tuple[str, str], tuple[float, requests.Response]] = {}

    def get(self, url: str, params: Any = None, headers: Any = None, **kwargs: Any) -> requests.Response:
        key = (url, repr(params))
        with self._lock:
            expires_at, document = self._documents.get(key, (0.0, None))
        if document is not None and time.monotonic() < expires_at:
            return document
        answer = self._session().get(url, params=params, headers=headers, timeout=self._timeout, **kwargs)
        if 200 <= answer.status_code < 300 and _is_document(answer):
            with self._lock:
                if len(self._documents) >= _MAX_DOCUMENTS:
                    self._documents.clear()
                self._documents[key] = (time.monotonic() + _DISCOVERY_SECONDS, answer)
        return answer

    def post(
        self, url: str, params: Any = None, data: Any = None, headers: Any = None, **kwargs: Any
    ) -> requests.Response:
        return self._session().post(url, params=params, data=data, headers=headers, timeout=self._timeout, **kwargs)

    def close(self) -> None:
        """Closes this thread's connections. MSAL calls it when an application goes; the others' stay."""

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = requests.Session()
            session.verify = self._verify
            if self._proxies is not None:
                session.proxies.update(self._proxies)
            self._sessions.session = session
        return session


def _is_document(answer: requests.Response) -> bool:
    """A page of a proxy or of a login to the network, with status 200, must not stay for a day."""
    try:
        return isinstance(answer.json(), dict)
    except ValueError:
        return False


def oidc_authority(issuer: str) -> str:
    """What MSAL Python takes as ``oidc_authority`` for an issuer: it wants a path, and many issuers have none.

    ``https://login.example.com`` becomes ``https://login.example.com/.``, with the same discovery document.
    """
    stripped = issuer.rstrip("/")
    return stripped if stripped.count("/") > 2 else f"{stripped}/."
