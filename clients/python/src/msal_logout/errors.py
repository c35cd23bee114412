"""What can go wrong, and whose fault it is. Match the class or its ``code``, never a text."""

from __future__ import annotations

from collections.abc import Mapping


class TokenCacheError(Exception):
    """The base of all errors of this package. ``code`` is stable, and the same in every language's client."""

    code = "ERR_TOKEN_CACHE"


class SignInRequired(TokenCacheError):
    """Nothing but a new sign-in helps: end the app's own session, and send the user to sign in."""

    code = "ERR_SIGN_IN_REQUIRED"

    def __init__(self, message: str = "no token can be had without the user: sign in again") -> None:
        super().__init__(message)


class SignedOut(SignInRequired):
    """The session or the account was signed out: nothing is stored, and a token that MSAL has got must not be used."""

    code = "ERR_SIGNED_OUT"

    def __init__(self) -> None:
        super().__init__("the user was signed out; end the session of this app and sign in again")


class TokenRequestFailed(TokenCacheError):
    """The provider answered with an error that a new sign-in does not mend. ``error`` is its OAuth code."""

    code = "ERR_TOKEN_REQUEST"

    def __init__(self, error: str, description: str = "") -> None:
        super().__init__(f'the provider answered "{error}"')
        self.error = error
        self.description = description


class TokenCacheMisuse(TokenCacheError):
    """A mistake in the use of the token cache, or in its set-up; the message says what to do instead."""

    code = "ERR_TOKEN_CACHE_MISUSE"


class TokenCacheTooLarge(TokenCacheError):
    """A cache has more than 16 MiB of text: no user's cache is that large, and no client would read it."""

    code = "ERR_TOKEN_CACHE_TOO_LARGE"


class DatabaseFailed(TokenCacheError):
    """The database cannot be reached, took too long, or failed. ``sqlstate``: PostgreSQL's code, if it has answered."""

    code = "ERR_TOKEN_CACHE_DATABASE"

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


# OIDC Core 1.0 section 3.1.2.6, RFC 6749 section 5.2, and Entra ID's consent_required.
_SIGN_IN_ERRORS = frozenset(
    [
        "invalid_grant",
        "interaction_required",
        "login_required",
        "account_selection_required",
        "consent_required",
    ]
)


def is_sign_in_required(error: object) -> bool:
    """Whether nothing but a new sign-in helps.

    :param error: what was raised, or what MSAL returned: ``None`` from ``acquire_token_silent`` means that the cache
        has no token, a mapping with ``error`` that the provider gave none.
    :returns: ``False`` for a result with a token, and for failures that a new sign-in does not mend
    """
    if error is None:
        return True
    if isinstance(error, Mapping):
        return error.get("error") in _SIGN_IN_ERRORS
    return isinstance(error, SignInRequired)
