"""Context variables that travel with a job."""

import contextvars
from collections.abc import Callable
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterward.carrier import Carrier
from afterward.errors import ArgumentError, ConfigurationError

tenant: ContextVar[Any] = ContextVar("tenant")
locale: ContextVar[Any] = ContextVar("locale", default="en")
unheard: ContextVar[Any] = ContextVar("unheard")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
anything = st.recursive(
    json_values
    | st.floats()
    | st.binary()
    | st.decimals()
    | st.dates()
    | st.uuids()
    | st.text(st.characters(categories=["Cs"]), min_size=1)
    | st.sampled_from([object(), int, print, {1: 2}, (1, 2), {1, 2}]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def elsewhere(function: Callable[..., Any], *args: Any) -> Any:
    """Call something in a context where no variable is set."""
    return contextvars.Context().run(function, *args)


def carried(value: Any) -> Any:
    """What `tenant` is in the task, when it is `value` at the call."""
    carrier = Carrier([tenant])

    def capture() -> str | None:
        tenant.set(value)
        return carrier.capture()

    stored = elsewhere(capture)

    def restore() -> Any:
        carrier.restore(stored)
        return tenant.get()

    return elsewhere(restore)


@given(json_values)
def test_what_json_knows_arrives(value: Any) -> None:
    assert carried(value) == value


@given(anything)
def test_what_would_not_arrive_is_refused_at_the_call(value: Any) -> None:
    """By `ArgumentError` and nothing else; what is taken comes back equal."""
    try:
        arrived = carried(value)
    except ArgumentError:
        return
    assert arrived == value


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1, 2}, b"bytes", Decimal("1.5"), object, float("nan"), float("inf"), "\ud800", {1: "x"}],
    ids=repr,
)
def test_a_refusal_says_what_is_allowed(value: Any) -> None:
    with pytest.raises(
        ArgumentError, match=r"context variable.* cannot be stored.*text, numbers, booleans, None, lists and dicts"
    ):
        carried(value)


def test_a_value_that_would_change_is_refused_by_the_name_of_its_variable() -> None:
    def capture() -> None:
        tenant.set("a")
        locale.set(("de", "at"))
        Carrier([tenant, locale]).capture()

    with pytest.raises(ArgumentError, match="'locale'"):
        elsewhere(capture)


def test_a_cycle_a_deep_value_and_a_huge_number_are_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    for value in (cycle, deep, 10**5000):
        with pytest.raises(ArgumentError):
            carried(value)


def test_only_what_is_set_travels() -> None:
    """A default is known where the task runs as well; and nothing set is nothing stored."""
    carrier = Carrier([tenant, locale])
    assert elsewhere(carrier.capture) is None
    assert elsewhere(Carrier([]).capture) is None

    def capture() -> str | None:
        tenant.set("a")
        return carrier.capture()

    stored = elsewhere(capture)

    def restore() -> tuple[Any, Any]:
        locale.set("de")
        carrier.restore(stored)
        return tenant.get(), locale.get()

    assert elsewhere(restore) == ("a", "de")


def test_only_what_is_declared_travels() -> None:
    def capture() -> str | None:
        tenant.set("a")
        unheard.set("secret")
        return Carrier([tenant]).capture()

    stored = elsewhere(capture)
    assert "secret" not in stored

    def restore() -> None:
        Carrier([tenant]).restore(stored)
        assert unheard.get(None) is None

    elsewhere(restore)


def test_a_variable_that_is_no_longer_declared_is_passed_over() -> None:
    def capture() -> str | None:
        tenant.set("a")
        locale.set("de")
        return Carrier([tenant, locale]).capture()

    stored = elsewhere(capture)

    def restore() -> tuple[Any, Any]:
        Carrier([locale]).restore(stored)
        return tenant.get(None), locale.get()

    assert elsewhere(restore) == (None, "de")


def test_restoring_changes_the_current_context_alone() -> None:
    def capture() -> str | None:
        tenant.set("a")
        return Carrier([tenant]).capture()

    stored = elsewhere(capture)
    elsewhere(Carrier([tenant]).restore, stored)
    assert tenant.get(None) is None


def test_two_variables_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="same name"):
        Carrier([tenant, ContextVar("tenant")])
