"""Sites, each with another order of all that happens, drawn by a seed: nothing is lost, stuck, or ended twice.

`python -m tests.simulation 60 2000` plays others than these.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest

from afterward.engine import finishing
from afterward.engine.slots import Slots
from afterward.holdings import Holdings
from afterward.intake import Intake
from afterward.job import NewJob, Placement
from afterward.liveness import Liveness
from afterward.lookout import Lookout
from afterward.stores.sqlite import claims, life, moves
from tests.simulation.playing import playing
from tests.simulation.process import LEASE_SECONDS

SEEDS = range(60)

HAPPENS = {
    "a process was killed",
    "it died between a commit and its answer",
    "a process left",
    "a request was cancelled",
    "a request was refused",
    "a ring was lost",
    "a transaction was refused",
    "the answer to a enqueue was lost",
    "the answer to a claim was lost",
    "the answer to a finish was lost",
    "the answer to a release was lost",
    "the answer to a beat was lost",
    "the answer to a join was lost",
    "process.died",
    "process.frozen",
    "liveness.taken_for_dead",
    "job.given_back",
    "an end was refused",
    "a job killed its process",
    "a suspect killed its child process",
    "a job was set aside",
}
"""What a simulation is worth nothing without."""


def play(seed: int) -> Counter[str]:
    """Eight seconds of trouble, and what comes of it."""
    with playing(seed) as site:
        site.start_process()
        site.start_process()
        site.go_on(8.0)
        site.recover()
        site.check()
        return site.world.seen


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_each_job_comes_to_one_end(seed: int) -> None:
    play(seed)


def test_all_that_may_happen_does() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        seen += play(seed)
        if seen.keys() >= HAPPENS:
            return
    assert not HAPPENS - seen.keys()


def test_a_seed_tells_all() -> None:
    assert play(6) == play(6)


@pytest.mark.parametrize("seed", range(8))
def test_where_nothing_goes_wrong_nothing_is_repaired(seed: int) -> None:
    play_in_peace(seed)


def play_in_peace(seed: int) -> None:
    """Jobs fail, and requests are cancelled: that is all."""
    with playing(seed) as site:
        site.start_process()
        site.start_process()
        site.go_on(4.0, in_peace=True)
        site.recover()
        site.check()
        assert site.world.seen.keys() <= {"a request was cancelled", "job.finished"}, site.world.seen


@pytest.mark.parametrize("seed", range(8))
def test_a_death_is_found_soon(seed: int) -> None:
    with playing(seed) as site:
        site.start_process()
        site.start_process()
        site.go_on(2.0, in_peace=True)
        killed = site.serving[0]
        killed.kill()
        longest = 1.0 if site.machine.proves_death else 1.5 * LEASE_SECONDS
        site.world.run_until(lambda: not site.lives(killed), longest)
        assert not site.lives(killed)
        site.recover()
        site.check()


# what would be found


def _raise(*_: object) -> NoReturn:
    raise RuntimeError("it is given up")


async def _nothing(*_: object) -> None:
    """In place of something that is to be done."""


def _nothing_at_once(*_: object) -> None:
    """The same."""


def _no(*_: object) -> bool:
    return False


def _place_free(_intake: Intake, jobs: Sequence[NewJob], _direct: bool) -> list[tuple[NewJob, Placement]]:
    return [(job, Placement.free) for job in jobs]


def _change(queries: dict[str, str], name: str, part: str, instead: str = "") -> Callable[[pytest.MonkeyPatch], None]:
    assert part in queries[name]
    return lambda monkeypatch: monkeypatch.setitem(queries, name, queries[name].replace(part, instead))


def _replace(thing: object, name: str, by: object) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(thing, name, by)


_ENDS, _DEATHS = moves._Q, life._Q  # pyright: ignore[reportPrivateUsage]

FAULTS = {
    "a success needs no lease": (
        24,
        _change(_ENDS, "succeed", " AND attempt = ended.column2 AND process = ended.column3"),
    ),
    "a failure needs no lease": (7, _change(_ENDS, "end", " AND attempt = ?2 AND process = ?3 AND status = 'running'")),
    "deaths are not counted": (0, _change(_DEATHS, "orphan", "min(deaths + 1, max(deaths, ?5))", "deaths")),
    "what comes due is not made ready": (0, _replace(claims, "promote", _nothing_at_once)),
    "nothing is given back": (34, _replace(Liveness, "_give_back", _nothing)),
    "nobody is buried for standing still": (1, _replace(Lookout, "_is_frozen", _no)),
    "who was taken for dead goes on": (7, _replace(Liveness, "_begin_anew", _nothing)),
    "a job does not wait for its request": (0, _replace(Intake, "_place", _place_free)),
    "what is on its way in is not known": (46, _replace(Holdings, "expect", _nothing_at_once)),
    "what a claim brings is not known": (15, _replace(Holdings, "expect_claim", _nothing_at_once)),
    "what was let go is not forgotten": (19, _replace(Holdings, "forget", _nothing_at_once)),
    "a slot is never freed": (0, _replace(Slots, "free", _nothing_at_once)),
    "an outcome is tried once": (2, _replace(finishing, "pause_after", _raise)),
}
"""Mistakes that one could make: a seed that shows each, and how the code is changed to make it."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_in_the_code_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, make = FAULTS[fault]
    make(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError)):
        play_many(first)


def play_many(first: int) -> None:
    """All of them, in whatever order: another change of the code may have another seed show the mistake."""
    for seed in (first, *SEEDS):
        play(seed)
        if seed < 8:
            play_in_peace(seed)
