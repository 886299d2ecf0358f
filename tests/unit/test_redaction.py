"""Which of a job's data is shown."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterward.redaction import REDACTED, Misplaced, hidden, looks_secret, redacted, restored, shown

SECRET = [
    "password", "PASSWORD", "Password", "userPassword", "new_password", "passwords", "passwd", "pwd", "passphrase",
    "token", "tokens", "access_token", "accessToken", "csrftoken", "secret", "clientSecret", "AWS_SECRET", "secrets",
    "key", "api_key", "apiKey", "apikey", "APIKey", "X-Api-Key", "private-key", "keys", "authorization",
    "Authorization", "proxy-authorization", "auth", "credentials", "cookie", "Set-Cookie", "jwt", "pin", "otp", "cvv",
]  # fmt: skip
PLAIN = [
    "n",
    "email",
    "message",
    "monkey",
    "keyboard",
    "author",
    "authors",
    "pinned",
    "spin",
    "path",
    "user_id",
    "",
    "42",
    "ключ",
]


@pytest.mark.parametrize("name", SECRET)
def test_names_that_promise_a_secret(name: str) -> None:
    """However they are spelled."""
    assert looks_secret(name)


@pytest.mark.parametrize("name", PLAIN)
def test_names_that_promise_none(name: str) -> None:
    """Also those in which such a word is only a part of another."""
    assert not looks_secret(name)


def test_secrets_are_redacted_at_any_depth() -> None:
    """By their name, in a pair of name and value, or in a URL; the rest is as it was."""
    given_ = {
        "to": "ada@example.com",
        "retries": [1, 2.5, None, True],
        "login": {"user": "ada", "password": {"old": "x", "new": "y"}},
        "headers": [["authorization", "Bearer x"], ["accept", "*/*"]],
        "database": "postgresql://ada:x@db.example.com/shop?tls=1",
        "link": "https://example.com/a:b@c",
    }
    assert redacted(given_) == {
        "to": "ada@example.com",
        "retries": [1, 2.5, None, True],
        "login": {"user": "ada", "password": REDACTED},
        "headers": [["authorization", REDACTED], ["accept", "*/*"]],
        "database": f"postgresql://ada:{REDACTED}@db.example.com/shop?tls=1",
        "link": "https://example.com/a:b@c",
    }


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:hun@ter2@cache/0", f"redis://:{REDACTED}@cache/0"),
        ("postgresql://ada:hunter2@@db/shop", f"postgresql://ada:{REDACTED}@db/shop"),
        ("smtp://ada@example.com:hun:ter2@mail", f"smtp://ada@example.com:{REDACTED}@mail"),
        ("a://u:hunter2@h and b://v:hunter2@i", f"a://u:{REDACTED}@h and b://v:{REDACTED}@i"),
        ("http://ada@example.com:80/a@b", "http://ada@example.com:80/a@b"),
    ],
)
def test_a_password_in_a_url_ends_at_the_host(url: str, told: str) -> None:
    """Also one that holds what separates the two."""
    assert redacted(url) == told


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(SECRET), inner),
)


@given(json_values, st.sampled_from(SECRET))
def test_a_secret_never_comes_through(value: object, name: str) -> None:
    """Whatever stands beside it, and however deep it lies."""
    data = json.dumps({"around": [value, {name: ["hunter2"]}], "beside": value})
    assert "hunter2" not in json.dumps(shown(data))


def test_data_that_cannot_be_shown_is_counted() -> None:
    """It is never shown as it is, for nobody has looked for secrets in it."""
    assert shown("[" * 100_000 + "]" * 100_000) == "[200,000 characters that cannot be shown]"
    assert shown("9" * 10_000) == "[10,000 characters that cannot be shown]"
    assert shown(None) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just("postgresql://user:hunter2@host/db"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "password", "token", "a", "note"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_what_is_hidden_comes_back(value: Any) -> None:
    shown, secrets = hidden(value)
    assert restored(shown, secrets) == value


@given(JSON)
def test_what_is_hidden_is_what_is_redacted(value: Any) -> None:
    shown, secrets = hidden(value)
    assert restored(shown, [REDACTED] * len(secrets)) == redacted(value)


def test_what_is_hidden_may_be_moved_to_where_it_is_hidden_too() -> None:
    shown, secrets = hidden({"users": [{"name": "a", "password": 1}, {"name": "b", "password": 2}]})
    shown["users"].reverse()
    assert restored(shown, secrets)["users"] == [{"name": "b", "password": 2}, {"name": "a", "password": 1}]


@pytest.mark.parametrize(
    "edited",
    [
        {"note": "[redacted 1]"},
        {"note": "it is [redacted 1]", "password": "x"},
        {"password": "[redacted 2]"},
        {"password": "[redacted 0]"},
        ["[redacted 1]"],
    ],
)
def test_what_is_hidden_is_not_put_where_it_would_be_shown(edited: Any) -> None:
    _, secrets = hidden({"password": "hunter2"})
    with pytest.raises(Misplaced):
        restored(edited, secrets)
