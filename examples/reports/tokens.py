"""Who somebody is: users with passwords, and the tokens that they get for them (JWT, RFC 7519)."""

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import jwt

ISSUER = "reports"
LIFETIME = timedelta(minutes=30)


class SettingsError(Exception):
    """A wrong setting; the message names it."""


@dataclass(frozen=True)
class User:
    """Somebody whose token was read. `id` never changes; whatever is theirs is kept by it."""

    id: str
    is_admin: bool = False


@dataclass(frozen=True)
class Account:
    """A user as the example knows them: a real application has them in its database."""

    user: User
    salt: bytes
    password_hash: bytes = field(repr=False)


def _account(user: User, password: str) -> Account:
    salt = os.urandom(16)
    return Account(user, salt, _hash(password, salt))


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


ACCOUNTS = {
    "ada": _account(User("user-1"), "countess"),
    "bob": _account(User("user-2"), "builder"),
    "root": _account(User("user-0", is_admin=True), "of all"),
}


def secret_from(environment: dict[str, str]) -> str:
    """What tokens are signed with. Raises `SettingsError`."""
    secret = environment.get("REPORTS_SECRET", "")
    if len(secret.encode()) < 32:
        raise SettingsError("REPORTS_SECRET signs the tokens: set it to a text of 32 bytes or more")
    return secret


def user_with(name: str, password: str) -> User | None:
    """The user of this name, if the password is theirs. It takes as long for a name that nobody has."""
    account = ACCOUNTS.get(name)
    salt, expected = (account.salt, account.password_hash) if account else (b"", b"")
    is_theirs = hmac.compare_digest(_hash(password, salt), expected)
    return account.user if account is not None and is_theirs else None


def token_of(user: User, secret: str) -> str:
    """A token by which they are known for a while."""
    claims = {"iss": ISSUER, "sub": user.id, "admin": user.is_admin, "exp": datetime.now(UTC) + LIFETIME}
    return jwt.encode(claims, secret, algorithm="HS256")


def user_of(token: str, secret: str) -> User | None:
    """Whose token it is; None for one that was not issued here, or has expired."""
    try:
        claims = jwt.decode(
            token, secret, algorithms=["HS256"], issuer=ISSUER, options={"require": ["iss", "sub", "exp"]}
        )
    except jwt.InvalidTokenError:
        return None
    return User(claims["sub"], is_admin=claims.get("admin") is True)
