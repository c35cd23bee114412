"""A Django project that signs in, and ends its own session when the user was signed out anywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.db import connections as django_connections
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse

from .cache import SharedTokenCache
from .errors import SignInRequired
from .sign_in import BuildClient, SignIn, SignInFailed, User, is_same_user, pending_of, user_of, with_pending

_USER, _PENDING = "msal_logout_user", "msal_logout_pending"
_View = TypeVar("_View", bound=Callable[..., Any])


def connections(alias: str = "default") -> Callable[[], Any]:
    """What :class:`SharedTokenCache` takes as ``database``: connections of its own to a database of the settings.
    Django's own belong to a request and to its transaction, and would hold a sign-out up.

    :param alias: in ``DATABASES``
    """

    def connect() -> Any:
        database: Any = django_connections[alias]
        return database.Database.connect(**database.get_connection_params())  # not from Django's own pool

    return connect


class DjangoSignIn:
    """Views to sign in and out, and the guard: ``urlpatterns += sign_in.urls``, and a module's
    ``middleware = sign_in.middleware`` in ``MIDDLEWARE``, behind Django's sessions.

    :param cache: the shared token cache of the app
    :param client: makes the MSAL application of one operation, with what it is given as ``token_cache``
    :param scopes: what the first access token is for
    :param claims: claims of the ID token that ``user["claims"]`` keeps
    :param on_sign_in: called with the request and the user when one has signed in, as to call
        ``django.contrib.auth.login``
    :param home: where the provider sends the browser after a sign-out: a path of this project, registered there
    :param sign_in_path: begins a sign-in; ``?return_to=`` says where the user wants to be afterwards
    :param callback_path: the redirect URI that is registered with the provider
    :param sign_out_path: ends the session of this project, and the provider's
    """

    def __init__(
        self,
        cache: SharedTokenCache,
        client: BuildClient,
        scopes: Sequence[str] = (),
        *,
        claims: Sequence[str] = (),
        on_sign_in: Callable[[HttpRequest, User], object] | None = None,
        home: str = "/",
        sign_in_path: str = "sign-in",
        callback_path: str = "callback",
        sign_out_path: str = "sign-out",
    ) -> None:
        self._sign_in = SignIn(cache, client, scopes, claims)
        self._on_sign_in = on_sign_in
        self._home = home
        self.urls = [
            path(sign_in_path, self._begin, name="msal_logout.sign_in"),
            path(callback_path, self._complete, name="msal_logout.callback"),
            path(sign_out_path, self._end, name="msal_logout.sign_out"),
        ]

    def user(self, request: HttpRequest) -> User | None:
        """Who is signed in."""
        return user_of(request.session.get(_USER))

    def required(self, view: _View) -> _View:
        """Decorates a view that is for signed-in users: others are sent to sign in, or answered 401."""

        @functools.wraps(view)
        def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if self.user(request) is None:
                raise SignInRequired
            return view(request, *args, **kwargs)

        return wrapper  # type: ignore[return-value]

    def token(self, request: HttpRequest, scopes: Sequence[str] | None = None) -> str:
        """An access token of the present user, from the cache or by a refresh.

        :param scopes: those of the sign-in where not given
        :raises SignInRequired: answered by the middleware: the session ends, and the user is sent to sign in
        """
        user = self.user(request)
        if user is None:
            raise SignInRequired
        return self._sign_in.token(user, scopes)

    @property
    def middleware(self) -> Callable[[Callable[[HttpRequest], Any]], Any]:
        """The guard, and what answers :class:`SignInRequired`."""
        return functools.partial(_Guard, self)

    def _is_active(self, request: HttpRequest) -> bool:
        user = self.user(request)
        return user is None or self._sign_in.is_active(user)

    def _begin(self, request: HttpRequest) -> HttpResponse:
        redirect_uri = request.build_absolute_uri(reverse("msal_logout.callback"))
        url, pending = self._sign_in.begin(redirect_uri, request.GET.get("return_to"))
        request.session[_PENDING] = with_pending(request.session.get(_PENDING), pending)
        return _no_store(HttpResponseRedirect(url))

    def _complete(self, request: HttpRequest) -> HttpResponse:
        pending = pending_of(request.session.get(_PENDING))
        user, return_to = self._sign_in.complete(request.GET.dict(), pending)
        if is_same_user(self.user(request), user):
            request.session.cycle_key()  # an id from before the sign-in is worth nothing afterwards
        else:
            request.session.flush()
        request.session.pop(_PENDING, None)
        request.session[_USER] = user
        if self._on_sign_in is not None:
            self._on_sign_in(request, user)
        return _no_store(HttpResponseRedirect(return_to))

    def _end(self, request: HttpRequest) -> HttpResponse:
        user = self.user(request)
        request.session.flush()
        home = request.build_absolute_uri(self._home)
        return _no_store(HttpResponseRedirect(home if user is None else self._sign_in.end(user, home)))

    def _answer(self, request: HttpRequest, error: SignInRequired) -> HttpResponse:
        if isinstance(error, SignInFailed):
            return _no_store(HttpResponse("this sign-in cannot be completed: begin again\n", status=400))
        request.session.flush()
        if request.method in ("GET", "HEAD") and "text/html" in request.headers.get("Accept", ""):
            query = urlencode({"return_to": request.get_full_path()})
            return _no_store(HttpResponseRedirect(f"{reverse('msal_logout.sign_in')}?{query}"))
        return _no_store(HttpResponse("not signed in\n", status=401))


class _Guard:
    sync_capable = True
    async_capable = False

    def __init__(self, sign_in: DjangoSignIn, get_response: Callable[[HttpRequest], Any]) -> None:
        self._sign_in = sign_in
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        if not self._sign_in._is_active(request):
            request.session.flush()
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return self._sign_in._answer(request, error) if isinstance(error, SignInRequired) else None


def _no_store(response: HttpResponse) -> HttpResponse:
    response.headers["Cache-Control"] = "no-store"
    return response
