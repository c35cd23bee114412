"""Signing in and out with any web framework; ``msal_logout.flask`` and ``msal_logout.django`` are made of it."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, cast

import msal
import requests

from .cache import OperationCache, SharedTokenCache, SignedInUser
from .errors import SignInRequired, TokenCacheMisuse, TokenRequestFailed, is_sign_in_required

_PENDING = 4  # sign-ins under way in one browser: a tab each

BuildClient = Callable[[OperationCache], msal.ConfidentialClientApplication]
"""Makes the MSAL application of one operation, with what it is given as ``token_cache``."""


class User(SignedInUser):
    """What the app's session remembers. No token is in it."""

    claims: dict[str, Any]
    """Claims of the ID token, those that the option ``claims`` names."""


class Pending(TypedDict):
    """A sign-in that is under way, in the browser's session until the callback."""

    flow: dict[str, Any]
    return_to: str


class SignInFailed(SignInRequired):
    """The callback belongs to no sign-in of this browser, or the provider said no: answer 400, and let the user begin
    again. ``error`` is the provider's, where it said one."""

    code = "ERR_SIGN_IN_FAILED"

    def __init__(self, error: str | None = None) -> None:
        super().__init__("this sign-in cannot be completed: begin again" + (f' ("{error}")' if error else ""))
        self.error = error


class SignIn:
    """:param cache: the shared token cache of the app
    :param client: makes the MSAL application of one operation
    :param scopes: what the first access token is for, beside ``openid profile offline_access``, which MSAL adds
    :param claims: claims of the ID token that ``user["claims"]`` keeps; a session in a cookie has 4 KB
    """

    def __init__(
        self,
        cache: SharedTokenCache,
        client: BuildClient,
        scopes: Sequence[str] = (),
        claims: Sequence[str] = (),
    ) -> None:
        if isinstance(scopes, str) or isinstance(claims, str):
            raise TokenCacheMisuse('"scopes" and "claims" must be lists of text')
        self._cache = cache
        self._client = client
        self._scopes = [*scopes]
        self._claims = [*claims]

    def begin(self, redirect_uri: str, return_to: str | None = None) -> tuple[str, Pending]:
        """Begins a sign-in: send the browser to the URL, and keep the second value in its session.

        :param redirect_uri: the app's own URL of the callback, as it is registered with the provider
        :param return_to: where the user wants to be afterwards: a path of this app; another site's is not followed
        """
        with self._cache.login() as tokens:
            flow = dict(self._client(tokens).initiate_auth_code_flow(self._scopes, redirect_uri=redirect_uri))
        url = str(flow.pop("auth_uri"))
        return url, {"flow": flow, "return_to": _path(return_to)}

    def complete(self, query: Mapping[str, Any], pending: Sequence[Pending]) -> tuple[User, str]:
        """Completes a sign-in: checks state and nonce, redeems the code with PKCE, and stores the tokens.

        :param query: of the callback
        :param pending: what the browser's session has of :meth:`begin`
        :returns: who has signed in, and where the user wanted to be
        :raises SignInFailed: where it is none of this browser's, or the provider said no
        :raises SignedOut: where the session was ended meanwhile
        """
        state = query.get("state")
        mine = next((each for each in pending if state and each["flow"].get("state") == state), None)
        if mine is None:
            raise SignInFailed
        with self._cache.login() as tokens:
            try:
                result = self._client(tokens).acquire_token_by_auth_code_flow(mine["flow"], dict(query))
            except (ValueError, RuntimeError):  # MSAL's for a response that does not fit, or a wrong nonce
                raise SignInFailed from None
            if "error" in result:
                raise SignInFailed(str(result["error"]))
        known = result.get("id_token_claims", {})
        claims = {name: known[name] for name in self._claims if name in known}
        return {**tokens.user, "claims": claims}, mine["return_to"]

    def is_active(self, user: SignedInUser) -> bool:
        """Whether the user is still signed in: by the sid, or without one by the subject.

        :raises DatabaseFailed: where the database cannot be asked
        """
        return self._cache.is_session_active(user["issuer"], user["sid"], user["subject"])

    def token(self, user: SignedInUser, scopes: Sequence[str] | None = None) -> str:
        """An access token, from the cache or by a refresh.

        :param scopes: those of the sign-in where not given
        :raises SignInRequired: where only a new sign-in helps; :class:`SignedOut` where the user was signed out
        :raises TokenRequestFailed: where the provider answered with another error
        """
        wanted = self._scopes if scopes is None else [*scopes]
        with self._cache.account(user["home_account_id"]) as tokens:
            client = self._client(tokens)
            accounts = client.get_accounts()
            result = client.acquire_token_silent_with_error(wanted, accounts[0]) if accounts else None
        if result is None or is_sign_in_required(result):
            raise SignInRequired
        if "access_token" not in result:
            raise TokenRequestFailed(str(result.get("error")), str(result.get("error_description", "")))
        return str(result["access_token"])

    def end(self, user: SignedInUser, home: str) -> str:
        """Forgets the user's tokens in this app.

        :param home: the app's own URL to which the provider sends the browser back, as it is registered there
        :returns: the URL at which the provider ends its session, too; ``home`` where it has none
        """
        self._cache.remove_account(user["home_account_id"])
        url = f"{user['issuer'].rstrip('/')}/.well-known/openid-configuration"
        try:
            with self._cache.login() as tokens:
                http_client = self._client(tokens).http_client  # the app's: it knows of proxies and certificates
            document = json.loads(http_client.get(url).text)
        except (requests.RequestException, ValueError):
            return home  # the provider is not there: the app's own session ends all the same
        endpoint = document.get("end_session_endpoint") if isinstance(document, dict) else None
        if not isinstance(endpoint, str):
            return home
        query = urllib.parse.urlencode({"client_id": self._cache.client_id, "post_logout_redirect_uri": home})
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"


def with_pending(pending: object, new: Pending) -> list[Pending]:
    """The sign-ins under way in a session, with a new one; a few at most."""
    return [*pending_of(pending)[1 - _PENDING :], new]


def pending_of(value: object) -> list[Pending]:
    """The sign-ins under way in a session."""
    entries = value if isinstance(value, list) else []
    return [cast(Pending, entry) for entry in entries if isinstance(entry, dict) and "flow" in entry]


def user_of(value: object) -> User | None:
    """Who is signed in, as a session has it."""
    needed = ("home_account_id", "issuer", "sid", "subject")
    return cast(User, value) if isinstance(value, dict) and all(name in value for name in needed) else None


def is_same_user(user: User | None, other: User) -> bool:
    """Whether what the app's session holds may stay when ``other`` signs in: another user must not find it."""
    return user is None or user["home_account_id"] == other["home_account_id"]


def _path(return_to: str | None) -> str:
    """A path of this app: browsers take ``//host`` and ``/\\host`` for another site, and drop control characters."""
    if not return_to or not return_to.startswith("/") or return_to[1:2] in ("/", "\\"):
        return "/"
    return return_to if all(character.isprintable() for character in return_to) else "/"
