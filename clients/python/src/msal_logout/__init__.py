"""A token cache for MSAL Python in PostgreSQL, which a sign-out at the identity provider empties."""

from .cache import AssertionCache, LoginCache, OperationCache, SharedTokenCache, SignedInUser
from .encoding import Encryption
from .errors import (
    DatabaseFailed,
    SignedOut,
    SignInRequired,
    TokenCacheError,
    TokenCacheMisuse,
    TokenCacheTooLarge,
    TokenRequestFailed,
    is_sign_in_required,
)
from .http import HttpClient, oidc_authority
from .listener import Listener
from .rows import RevokedSession

__all__ = [
    "AssertionCache",
    "DatabaseFailed",
    "Encryption",
    "HttpClient",
    "Listener",
    "LoginCache",
    "OperationCache",
    "RevokedSession",
    "SharedTokenCache",
    "SignInRequired",
    "SignedInUser",
    "SignedOut",
    "TokenCacheError",
    "TokenCacheMisuse",
    "TokenCacheTooLarge",
    "TokenRequestFailed",
    "is_sign_in_required",
    "oidc_authority",
]
__version__ = "0.1.0"
