"""Ten thousand calls with generated arguments: each is refused by an error of ours, or arrives as it was.

Against the codec alone, and through `Task.enqueue` against a real store: of a refused call there is no row.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from afterward import Afterward, ArgumentError, Task, TaskError
from afterward.arguments import ArgumentCodec
from tests.support.values import FITTING, anything, json_values, same, typed


def taking(annotation: Any) -> Callable[..., Any]:
    def function(value: Any) -> Any:
        return value

    function.__annotations__["value"] = annotation
    return function


CODECS = {id(annotation): ArgumentCodec(taking(annotation), "app:send") for annotation, _ in FITTING}


def arrived(annotation: Any, value: Any) -> Any:
    codec = CODECS[id(annotation)]
    args, kwargs = codec.load(codec.dump((value,), {}))
    assert (args, list(kwargs)) == ((), ["value"])
    return kwargs["value"]


@given(typed())
@settings(max_examples=1200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_fits_its_annotation_arrives_as_it_was(case: tuple[Any, Any]) -> None:
    """Not one is refused; equal, and of the same types all the way down."""
    annotation, value = case
    assert same(arrived(annotation, value), value)


ANNOTATIONS = [annotation for annotation, _ in FITTING]


@given(anything, st.integers(0, 4))
@settings(max_examples=900, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_else_is_given_is_refused_or_arrives_equal(value: Any, first: int) -> None:
    """By `ArgumentError` and nothing else, whatever the value is, by a fifth of all annotations."""
    for annotation in ANNOTATIONS[first::5]:
        try:
            result = arrived(annotation, value)
        except ArgumentError:
            continue
        assert bool(result == value)


# Signatures and calls.


@dataclass(frozen=True)
class Shape:
    """A signature, and a call that may fit it."""

    parameters: tuple[inspect.Parameter, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


KIND = inspect.Parameter
NAMES = ["a", "b", "c", "self", "func", "args", "kwargs", "delay", "queue", "name", "task"]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    names = draw(st.permutations(NAMES))
    counts = [draw(st.integers(0, 2)) for _ in range(3)]
    rest, more = draw(st.booleans()), draw(st.booleans())
    kinds = [KIND.POSITIONAL_ONLY] * counts[0] + [KIND.POSITIONAL_OR_KEYWORD] * counts[1]
    kinds += [KIND.VAR_POSITIONAL] * rest + [KIND.KEYWORD_ONLY] * counts[2] + [KIND.VAR_KEYWORD] * more
    parameters: list[inspect.Parameter] = []
    defaults = False
    for name, kind in zip(names, kinds, strict=False):
        default: Any = KIND.empty
        if kind in (KIND.POSITIONAL_ONLY, KIND.POSITIONAL_OR_KEYWORD):
            defaults = defaults or draw(st.booleans())
            default = 100 if defaults else KIND.empty
        elif kind is KIND.KEYWORD_ONLY and draw(st.booleans()):
            default = 100
        parameters.append(KIND(name, kind, default=default))
    values = st.integers(0, 9) | json_values
    args = tuple(draw(st.lists(values, max_size=sum(counts[:2]) + 2 * rest + 1)))
    # Not the names of positional-only parameters: older Pythons' `Signature.bind` takes them for a mistake.
    kwargs = draw(st.dictionaries(st.sampled_from(names[counts[0] : len(kinds) + 2]), values, max_size=5))
    return Shape(tuple(parameters), args, kwargs)


def function_of(shape: Shape) -> Callable[..., Any]:
    """A function of that signature, that returns all it is given by name."""
    signature = inspect.Signature(list(shape.parameters))
    namespace: dict[str, Any] = {}
    names = ", ".join(f"{name!r}: {name}" for name in signature.parameters)
    exec(f"def function{signature}: return {{{names}}}", namespace)
    function: Callable[..., Any] = namespace["function"]
    return function


@given(shapes())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_call_of_every_signature_arrives_or_is_refused_as_a_direct_call_would_be(shape: Shape) -> None:
    """What a direct call takes is taken, and what it refuses is refused."""
    function = function_of(shape)
    codec = ArgumentCodec(function, "app:send")
    try:
        direct = function(*shape.args, **shape.kwargs)
    except TypeError:
        with pytest.raises(ArgumentError):
            codec.dump(shape.args, shape.kwargs)
        return
    args, kwargs = codec.load(codec.dump(shape.args, shape.kwargs))
    assert same(function(*args, **kwargs), direct)


# Through the whole way into a store.


class Counted:
    """Tasks of every annotation, their store, and the number of its rows as another connection sees them."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._tasks = Afterward(f"sqlite:///{folder}/jobs.db")
        self.by_annotation: dict[int, Task[..., Any]] = {
            id(annotation): self._tasks.task(name=f"task-{number}")(taking(annotation))
            for number, (annotation, _) in enumerate(FITTING)
        }
        self._living = self._tasks.running(None)
        self._runner.run(self._living.__aenter__())
        self._connection = apsw.Connection(str(folder / "jobs.db"))

    def enqueue(self, task: Task[..., Any], *args: Any, **kwargs: Any) -> str:
        async def enqueue() -> str:
            return (await task.enqueue(*args, **kwargs)).id

        return self._runner.run(enqueue())

    def stored(self, id_: str) -> str:
        job = self._runner.run(self._tasks.get(id_))
        assert job is not None
        return job.arguments

    @property
    def rows(self) -> int:
        found = self._connection.execute("SELECT count(*) FROM jobs").get
        assert isinstance(found, int)
        return found

    def close(self) -> None:
        assert self._connection.pragma("integrity_check") == "ok"
        self._connection.close()
        self._runner.run(self._living.__aexit__(None, None, None))
        self._runner.close()


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    counted = Counted(tmp_path_factory.mktemp("counted"))
    yield counted
    counted.close()


# A heart beats in another thread meanwhile, with jitter.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@given(annotation=st.sampled_from(ANNOTATIONS), value=anything, how=st.integers(0, 3))
@example(annotation=str, value="\ud800", how=0)
@example(annotation=str, value="\0", how=0)
@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_of_a_refused_call_there_is_no_row_and_of_any_other_there_is_one(
    counted: Counted, annotation: Any, value: Any, how: int
) -> None:
    """Given by position, by name, with an argument too many, or with a name that is not there."""
    task = counted.by_annotation[id(annotation)]
    args, kwargs = [((value,), {}), ((), {"value": value}), ((value, 1), {}), ((value,), {"more": value})][how]
    before = counted.rows
    try:
        id_ = counted.enqueue(task, *args, **kwargs)
    except (ArgumentError, TaskError):
        assert counted.rows == before
        return
    assert counted.rows == before + 1
    _, loaded = task.arguments.load(counted.stored(id_))
    assert bool(loaded["value"] == value)


def test_of_many_calls_as_one_that_hold_a_bad_one_there_is_no_row(counted: Counted) -> None:
    task = counted.by_annotation[id(int)]
    before = counted.rows
    for bad in (object(), "5", 10**5000, None):

        async def enqueue(bad: Any = bad) -> None:
            await task.owner.enqueue_many([task.prepare(n) for n in (1, 2, bad, 3)])

        with pytest.raises(ArgumentError):
            counted._runner.run(enqueue())  # pyright: ignore[reportPrivateUsage]
    assert counted.rows == before
