"""A Flask app that signs in, and ends its own session when the user was signed out anywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import flask
from werkzeug.wrappers import Response

from .cache import SharedTokenCache
from .errors import SignInRequired
from .sign_in import BuildClient, SignIn, SignInFailed, User, is_same_user, pending_of, user_of, with_pending

_USER, _PENDING = "msal_logout_user", "msal_logout_pending"
_View = TypeVar("_View", bound=Callable[..., Any])


def guard(app: flask.Flask, is_active: Callable[[], bool], end: Callable[[], object] | None = None) -> None:
    """Ends the app's own session with the next request after a sign-out, for apps that sign in by themselves. Make it
    before other functions of ``before_request``: those that Flask calls earlier still see the user.

    :param is_active: whether the session of the present request is active: as ``lambda: "user" not in session or
        cache.is_session_active(session["user"]["issuer"], session["user"]["sid"], session["user"]["subject"])``
    :param end: ends the app's session; default ``flask.session.clear``. The request goes on as nobody's
    """

    @app.before_request
    def look() -> None:
        if not is_active():
            (end or flask.session.clear)()


class FlaskSignIn:
    """Routes to sign in and out, and the guard.

    :param app: with a ``SECRET_KEY``, or a session interface of its own
    :param cache: the shared token cache of the app
    :param client: makes the MSAL application of one operation, with what it is given as ``token_cache``
    :param scopes: what the first access token is for
    :param claims: claims of the ID token that ``user["claims"]`` keeps
    :param sign_in_path: begins a sign-in; ``?return_to=`` says where the user wants to be afterwards
    :param callback_path: the redirect URI that is registered with the provider
    :param sign_out_path: ends the app's session, and the provider's
    """

    def __init__(
        self,
        app: flask.Flask,
        cache: SharedTokenCache,
        client: BuildClient,
        scopes: Sequence[str] = (),
        *,
        claims: Sequence[str] = (),
        sign_in_path: str = "/sign-in",
        callback_path: str = "/callback",
        sign_out_path: str = "/sign-out",
    ) -> None:
        self._sign_in = SignIn(cache, client, scopes, claims)
        self._sign_in_path = sign_in_path
        app.add_url_rule(sign_in_path, "msal_logout.sign_in", self._begin)
        app.add_url_rule(callback_path, "msal_logout.callback", self._complete)
        app.add_url_rule(sign_out_path, "msal_logout.sign_out", self._end)
        app.register_error_handler(SignInRequired, self._answer)
        guard(app, self._is_active)

    @property
    def user(self) -> User | None:
        """Who is signed in."""
        return user_of(flask.session.get(_USER))

    def required(self, view: _View) -> _View:
        """Decorates a view that is for signed-in users: others are sent to sign in, or answered 401."""

        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self.user is None:
                raise SignInRequired
            return flask.current_app.ensure_sync(view)(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    def token(self, scopes: Sequence[str] | None = None) -> str:
        """An access token of the present user, from the cache or by a refresh.

        :param scopes: those of the sign-in where not given
        :raises SignInRequired: answered by the app: its session ends, and the user is sent to sign in
        """
        user = self.user
        if user is None:
            raise SignInRequired
        return self._sign_in.token(user, scopes)

    def _is_active(self) -> bool:
        user = self.user
        return user is None or self._sign_in.is_active(user)

    def _begin(self) -> Response:
        redirect_uri = flask.url_for("msal_logout.callback", _external=True)
        url, pending = self._sign_in.begin(redirect_uri, flask.request.args.get("return_to"))
        flask.session[_PENDING] = with_pending(flask.session.get(_PENDING), pending)
        return _no_store(flask.redirect(url))

    def _complete(self) -> Response:
        query = flask.request.args.to_dict()
        user, return_to = self._sign_in.complete(query, pending_of(flask.session.get(_PENDING)))
        regenerate = getattr(flask.current_app.session_interface, "regenerate", None)  # Flask-Session's
        if regenerate is not None:
            regenerate(flask.session)  # an id from before the sign-in is worth nothing afterwards
        if not is_same_user(self.user, user):
            flask.session.clear()
        flask.session.pop(_PENDING, None)
        flask.session[_USER] = user
        return _no_store(flask.redirect(return_to))

    def _end(self) -> Response:
        user = self.user
        flask.session.clear()
        home = flask.request.host_url
        return _no_store(flask.redirect(home if user is None else self._sign_in.end(user, home.rstrip("/"))))

    def _answer(self, error: SignInRequired) -> Response:
        if isinstance(error, SignInFailed):
            return _no_store(flask.make_response("this sign-in cannot be completed: begin again\n", 400))
        flask.session.clear()
        request = flask.request
        if request.method in ("GET", "HEAD") and request.accept_mimetypes.accept_html and _is_page(request):
            return_to = request.full_path if request.query_string else request.path
            return _no_store(flask.redirect(flask.url_for("msal_logout.sign_in", return_to=return_to)))
        return _no_store(flask.make_response("not signed in\n", 401))


def _is_page(request: flask.Request) -> bool:
    """Whether a browser shows the answer: one to a script cannot be sent to another site to sign in."""
    return "text/html" in request.headers.get("Accept", "")


def _no_store(response: Any) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response  # type: ignore[no-any-return]
