"""What a process has lost, and what it does not know to hold: at whatever moments its heartbeat looks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest

from afterward.holdings import Holdings, Known
from afterward.reconciliation import Differences, differences
from afterward.stores.base import Beat, Held

NOTHING = Known({}, {}, frozenset())
IN_ACCORD = Differences({}, [], [])


@dataclass
class World:
    """A process, and what a store holds in its name."""

    holdings: Holdings = field(default_factory=Holdings)
    held: dict[str, Held] = field(default_factory=dict[str, Held])
    files: set[str] = field(default_factory=set[str])


class Moment(NamedTuple):
    """What the process knows, and what the store holds in its name."""

    known: Known
    held: dict[str, Held]
    files: frozenset[str]


def beat(held: dict[str, Held], files: frozenset[str] = frozenset()) -> Beat:
    return Beat(others={}, signs=frozenset(), held=held, files=files, has_orphans=False)


Step = Callable[[World], object]


def expect(attempt: int) -> Step:
    return lambda world: world.holdings.expect("job", attempt)


def have(attempt: int) -> Step:
    return lambda world: world.holdings.have("job", attempt)


def leave(attempt: int) -> Step:
    return lambda world: world.holdings.leave([("job", attempt)])


def forget(attempt: int) -> Step:
    return lambda world: world.holdings.forget([("job", attempt)])


def expect_claim(world: World) -> None:
    world.holdings.expect_claim("token")


def forget_claim(world: World) -> None:
    world.holdings.forget_claim("token")


def stored(attempt: int, token: str | None = None) -> Step:
    """A transaction after which the store holds the job in this process's name, as this attempt and no other."""
    return lambda world: world.held.update(job=Held(attempt, token))


def is_gone(world: World) -> None:
    """A transaction after which the store does not hold the job in this process's name."""
    world.held.pop("job", None)


def expect_file(world: World) -> None:
    world.holdings.expect_files(["file"])


def forget_file(world: World) -> None:
    world.holdings.forget_files(["file"])


def file_is_stored(world: World) -> None:
    world.files.add("file")


def file_is_a_job_s(world: World) -> None:
    world.files.discard("file")


LIVES: dict[str, list[Step]] = {
    "leased and finished": [expect(1), stored(1), have(1), leave(1), is_gone, forget(1)],
    "held and released": [expect(0), stored(0), have(0), leave(0), is_gone, forget(0)],
    "refused by the store": [expect(0), forget(0)],
    "claimed and finished": [expect_claim, stored(3, "token"), have(3), forget_claim, leave(3), is_gone, forget(3)],
    "released and claimed here, in one transaction": [
        expect(0), stored(0), have(0), expect_claim, leave(0), stored(1, "token"), forget(0), have(1), forget_claim,
        leave(1), is_gone, forget(1),
    ],
    "released and claimed here, and the claim is answered first": [
        expect(0), stored(0), have(0), expect_claim, leave(0), stored(1, "token"), have(1), forget_claim, forget(0),
        leave(1), is_gone, forget(1),
    ],
    "failed and tried again here, in one transaction": [
        expect(1), stored(1), have(1), expect_claim, leave(1), stored(2, "token"), have(2), forget_claim, forget(1),
        leave(2), is_gone, forget(2),
    ],
    "failed and tried again here, much later": [
        expect(1), stored(1), have(1), leave(1), is_gone, forget(1), expect_claim, stored(2, "token"), have(2),
        forget_claim, leave(2), is_gone, forget(2),
    ],
    "a file and its job": [
        expect_file, file_is_stored, expect(0), file_is_a_job_s, stored(0), have(0), forget_file, leave(0), is_gone,
        forget(0),
    ],
}  # fmt: skip
"""Ways of a job through a process in which nothing goes wrong."""


@pytest.mark.parametrize("steps", LIVES.values(), ids=LIVES)
def test_nothing_is_mistaken_whatever_happens_while_a_beat_is_on_its_way(steps: list[Step]) -> None:
    """Each combination of moments: of the first look, of the beat's transaction, of the second look, of what follows.

    Nothing is lost, and of what is to be given back the store finds nothing in this process's name any more.
    """
    moments = list(played(steps))
    for first, before in enumerate(moments):
        for second, at_beat in enumerate(moments[first:], first):
            seen = beat(at_beat.held, at_beat.files)
            for third, after in enumerate(moments[second:], second):
                differ = differences(before.known, seen, after.known)
                assert differ.lost == {}
                for later in moments[third:]:
                    assert not any(is_in_its_name(later, attempt) for attempt in differ.unknown)
                    assert later.files.isdisjoint(differ.unknown_files)


def played(steps: list[Step]) -> Iterator[Moment]:
    """The moment before the first step, and those after each."""
    world = World()
    for step in (None, *steps):
        if step is not None:
            step(world)
        yield Moment(world.holdings.known(), world.held.copy(), frozenset(world.files))


def is_in_its_name(moment: Moment, attempt: tuple[str, int]) -> bool:
    """What `give_back` compares before it swaps."""
    job, number = attempt
    return job in moment.held and moment.held[job].attempt == number


WRONG: dict[str, tuple[list[Step], Differences]] = {
    "the answer to a claim is lost": (
        [expect_claim, stored(1, "token"), forget_claim],
        Differences({}, [("job", 1)], []),
    ),
    "a claim is answered, and the job is not begun": (
        [expect_claim, stored(1, "token"), have(1), forget(1), forget_claim],
        Differences({}, [("job", 1)], []),
    ),
    "an enqueue fails, and is carried out": ([expect(0), stored(0), forget(0)], Differences({}, [("job", 0)], [])),
    "a release fails, and is not carried out": (
        [expect(0), stored(0), have(0), leave(0), forget(0)],
        Differences({}, [("job", 0)], []),
    ),
    "another process took this one for dead": (
        [expect(1), stored(1), have(1), is_gone],
        Differences({"job": 1}, [], []),
    ),
    "it has the job again, and knows only of its first attempt": (
        [expect(1), stored(1), have(1), stored(2, "token")],
        Differences({"job": 1}, [("job", 2)], []),
    ),
    "a request with a file was refused": ([expect_file, file_is_stored, forget_file], Differences({}, [], ["file"])),
}
"""What goes wrong, and what the next heartbeat that begins after it makes of it."""


@pytest.mark.parametrize(("steps", "differ"), WRONG.values(), ids=WRONG)
def test_what_went_wrong_is_found_by_the_next_beat(steps: list[Step], differ: Differences) -> None:
    *_, last = played(steps)
    assert differences(last.known, beat(last.held, last.files), last.known) == differ


@pytest.mark.parametrize(("steps", "differ"), WRONG.values(), ids=WRONG)
def test_what_is_about_to_go_wrong_is_left_to_the_next_beat(steps: list[Step], differ: Differences) -> None:
    """As long as one of the two looks says that it may be as it should."""
    *moments, last = played(steps)
    for before in moments:
        found = differences(before.known, beat(last.held, last.files), last.known)
        assert found in (IN_ACCORD, differ, Differences({}, differ.unknown, differ.unknown_files))


def test_a_reservation_is_given_back_when_neither_look_knows_of_its_request() -> None:
    """Whoever reserves is known before; so it is over, whatever the store has lost of its end."""
    holdings = Holdings()
    before = holdings.known()
    holdings.expect_reservation("of a request")
    meanwhile = holdings.known()
    holdings.forget_reservation("of a request")
    after = holdings.known()
    seen = replace(beat({}), reservations=frozenset({"of a request"}))
    for first, second in ((before, meanwhile), (meanwhile, meanwhile), (meanwhile, after)):
        assert differences(first, seen, second) == IN_ACCORD
    assert differences(after, seen, after) == Differences({}, [], [], ("of a request",))
    assert differences(after, replace(seen, has_looked=False), after) == IN_ACCORD


def test_a_job_that_is_only_possible_is_not_missed() -> None:
    possible = Known({}, {"job": 1}, frozenset())
    assert differences(possible, beat({}), possible) == IN_ACCORD


def test_what_one_look_is_certain_of_is_not_missed() -> None:
    """It was stored after the beat had looked, or let go before."""
    certain = Known({"job": 1}, {}, frozenset())
    assert differences(NOTHING, beat({}), certain) == IN_ACCORD
    assert differences(certain, beat({}), NOTHING) == IN_ACCORD
    assert differences(certain, beat({}), Known({"job": 2}, {}, frozenset())) == IN_ACCORD


def test_what_one_look_knows_is_known() -> None:
    """As certain, as possible, or by the token of its claim."""
    held = beat({"job": Held(2, "token")})
    for known in (
        Known({"job": 2}, {}, frozenset()),
        Known({}, {"job": 2}, frozenset()),
        Known({}, {}, frozenset({"token"})),
    ):
        assert differences(known, held, NOTHING) == IN_ACCORD
        assert differences(NOTHING, held, known) == IN_ACCORD
    for unknown in (Known({"job": 1}, {}, frozenset()), Known({}, {}, frozenset({"another"}))):
        assert differences(unknown, held, NOTHING).unknown == [("job", 2)]


def test_what_was_not_claimed_is_not_known_by_a_token() -> None:
    assert differences(NOTHING, beat({"job": Held(0, None)}), NOTHING).unknown == [("job", 0)]


def test_a_file_that_one_look_knows_is_known() -> None:
    first, second = Known({}, {}, frozenset(), frozenset({"a"})), Known({}, {}, frozenset(), frozenset({"b"}))
    assert differences(first, beat({}, frozenset({"a", "b", "c"})), second).unknown_files == ["c"]


def test_a_beat_that_has_not_looked_shows_no_differences() -> None:
    """It names nothing, and that is no reason to give up what this process runs."""
    holdings = Holdings()
    holdings.expect("job", 1)
    holdings.have("job", 1)
    known = holdings.known()
    assert differences(known, beat({}), known).lost == {"job": 1}
    assert differences(known, replace(beat({}), has_looked=False), known) == IN_ACCORD
