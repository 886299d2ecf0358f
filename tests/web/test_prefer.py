"""The `Prefer` header: what is understood of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterward.web.prefer import Preferences, preferences_in


@pytest.mark.parametrize(
    ("lines", "preferred"),
    [
        ([], Preferences()),
        (["respond-async"], Preferences(respond_async=True)),
        (["wait=10"], Preferences(wait=10)),
        (["respond-async, wait=10"], Preferences(respond_async=True, wait=10)),
        (["respond-async;wait=10"], Preferences(respond_async=True)),
        (["respond-async", "wait=10"], Preferences(respond_async=True, wait=10)),
        (["Respond-Async, WAIT = 10"], Preferences(respond_async=True, wait=10)),
        (['wait="10"'], Preferences(wait=10)),
        (["wait=10, wait=20"], Preferences(wait=10)),
        (['handling=lenient; foo="a, wait=3", wait=5'], Preferences(wait=5)),
        (['note="wait=3", respond-async'], Preferences(respond_async=True)),
        (["wait"], Preferences()),
        (["wait=soon"], Preferences()),
        (["wait=-1"], Preferences()),
        (["wait=1.5"], Preferences()),
        (["wait=99999999999999999999"], Preferences()),
        ([", ,wait=1,"], Preferences(wait=1)),
        (["return=minimal"], Preferences()),
    ],
)
def test_what_a_client_prefers(lines: list[str], preferred: Preferences) -> None:
    """By RFC 7240, section 2: names in any case, values quoted or not, the first of several; what is not valid, not."""
    assert preferences_in([(b"Prefer", line.encode()) for line in lines]) == preferred


@given(st.text(st.characters(codec="latin-1")))
def test_any_header_can_be_read(text: str) -> None:
    """It is a client's to write."""
    preferences_in([(b"prefer", text.encode("latin-1"))])
