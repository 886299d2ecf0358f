"""Results as JSON, by the return annotation: what is stored reads back equal, and all else is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from pydantic import BaseModel, ConfigDict, SecretStr, computed_field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from afterward.codec import DEFAULT_MAX_BYTES
from afterward.errors import ResultError, TaskError
from afterward.result import ResultCodec
from tests.support.values import anything, same, typed


class Receipt(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")
    order_id: int

    @computed_field
    @property
    def label(self) -> str:
        return f"#{self.order_id}"


class Longer(Receipt):
    note: str = ""


def receipt() -> Receipt:
    return Receipt.model_validate({"orderId": 5})


@dataclass
class Point:
    x: int


def returning(annotation: Any) -> Callable[..., Any]:
    def function() -> Any: ...

    function.__annotations__["return"] = annotation
    return function


def codec(annotation: Any, max_bytes: int = DEFAULT_MAX_BYTES) -> ResultCodec:
    return ResultCodec(returning(annotation), "app:send", max_bytes)


def arrived(annotation: Any, value: Any) -> Any:
    results = codec(annotation)
    return results.load(results.dump(value))


GOOD: list[tuple[Any, Any]] = [
    (int, 5),
    (str, "a\0😀"),
    (bytes, b"\xff\x00"),
    (list[bytes], [b"\xff"]),
    (bytes | None, b"text"),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=1)),
    (datetime, datetime(2024, 1, 1, tzinfo=UTC)),
    (timedelta, timedelta.min),
    (set[int], {1}),
    (tuple[int, str], (1, "a")),
    (Point, Point(1)),
    (list[Point], [Point(1)]),
    (dict[UUID, Point], {UUID(int=1): Point(2)}),
    (Receipt, receipt()),
    (list[Receipt], [receipt()]),
    (Any, {"a": [1, None, 2.5, "x", True]}),
]


@pytest.mark.parametrize(("annotation", "value"), GOOD, ids=[repr(value) for _, value in GOOD])
def test_a_result_of_its_annotated_type_reads_back_as_it_was(annotation: Any, value: Any) -> None:
    result = arrived(annotation, value)
    assert result == value
    assert type(result) is type(value)


def test_an_instant_in_the_hour_that_comes_twice_reads_back() -> None:
    moment = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert arrived(datetime, moment).timestamp() == moment.timestamp()


def test_nothing_returned_is_nothing_stored() -> None:
    """Whatever is annotated, and though it cannot be resolved or stored."""
    for annotation in (int, None, Any, Response, "OnlyForTheTypeChecker"):
        results = codec(annotation)
        assert results.dump(None) is None
        assert results.load(None) is None


def test_a_result_without_an_annotation_is_what_json_knows() -> None:
    def function(*_: object) -> Any: ...

    del function.__annotations__["return"]
    results = ResultCodec(function, "app:send")
    assert results.load(results.dump({"a": [1]})) == {"a": [1]}


BAD: list[tuple[Any, Any]] = [
    (int, "5"),
    (str, 5),
    (None, 5),
    (float, float("nan")),
    (Any, object()),
    (Any, (1, 2)),
    (Any, Point(1)),
    (Any, "\ud800"),
    (Any, 10**5000),
    (Any, SecretStr("hush")),
    (SecretStr, SecretStr("hush")),
    (Receipt, Longer.model_validate({"orderId": 1, "note": "x"})),
    (list[int], (1, 2)),
    (Response, Response()),
    ("OnlyForTheTypeChecker", 5),
    ("not an expression", 5),
    ("UUID.nothing", 5),
]


@pytest.mark.parametrize(
    ("annotation", "value"), BAD, ids=[f"{n}-{type(value).__name__}" for n, (_, value) in enumerate(BAD)]
)
def test_what_would_read_back_as_something_else_is_refused(annotation: Any, value: Any) -> None:
    """By `ResultError` and nothing else; it says that the task ran, and what to return; never what was returned."""
    with pytest.raises(
        ResultError, match=r"task app:send ran to its end, .*cannot be stored: .*return None, or data"
    ) as refused:
        codec(annotation).dump(value)
    assert "hush" not in str(refused.value)


class Unfinished(BaseModel):
    """It names what is not there."""

    next: "Nothing"  # noqa: F821  # pyright: ignore[reportUndefinedVariable] - so it is


def test_a_type_that_is_never_finished_is_refused_at_the_start_and_is_no_reason_to_run_again() -> None:
    results = codec(Unfinished)
    with pytest.raises(
        TaskError, match="task app:send: its return annotation Unfinished cannot be made out; define all"
    ):
        results.check()
    with pytest.raises(ResultError, match=r"ran to its end, .*return annotation Unfinished"):
        results.dump({"next": None})
    assert results.dump(None) is None


def test_a_type_that_cannot_be_stored_is_no_mistake_before_it_is_returned() -> None:
    codec(Response).check()


def test_a_cycle_and_a_deep_result_are_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    for value in (cycle, deep):
        with pytest.raises(ResultError):
            codec(Any).dump(value)


@pytest.mark.parametrize("limit", [100, DEFAULT_MAX_BYTES])
def test_the_limit_is_of_the_stored_bytes_to_the_byte(limit: int) -> None:
    results = codec(str, limit)
    assert results.dump("x" * (limit - 2)) is not None
    with pytest.raises(ResultError, match="more than"):
        results.dump("x" * (limit - 1))


@given(typed())
@settings(max_examples=400, deadline=None)
def test_every_generated_result_of_its_type_reads_back(case: tuple[Any, Any]) -> None:
    annotation, value = case
    assert same(arrived(annotation, value), value)


@given(typed(), anything)
@settings(max_examples=400, deadline=None)
def test_every_other_generated_result_reads_back_or_is_refused(case: tuple[Any, Any], value: Any) -> None:
    try:
        result = arrived(case[0], value)
    except ResultError:
        return
    assert result == value
