"""Who is to be buried: whom the counters show to stand still for as long as its lease, or, by a sign of death, less."""

from afterward.lookout import LOOKS, SIGN_BEATS, Lookout, Pace, Still
from afterward.stores.base import Beat

BEAT = 1.0
NOBODY = Still([], [])


class Watch:
    """A lookout, and its looks at other processes. Each look takes `takes` seconds, and comes when it is due."""

    def __init__(self, looks: int = LOOKS, takes: float = 0.0) -> None:
        self.lookout = Lookout(Pace(BEAT, looks))
        self.takes = takes
        self.now = 1000.0

    def look(self, signs: str = "", **counters: int) -> Still:
        """A look that sees these counters, and these processes (by their letters) showing a sign of death."""
        began = self.now
        beat = Beat(others=counters, signs=frozenset(signs), held={}, files=frozenset(), has_orphans=False)
        still = self.lookout.look(beat, began, began + self.takes)
        self.now = self.lookout.next_look(began)
        assert began < self.now <= began + BEAT
        return still


# Frozen.


def test_one_that_stands_still_for_as_many_looks_as_its_lease_has_beats_is_frozen() -> None:
    watch = Watch()
    for _ in range(LOOKS):
        assert watch.look(a=7) == NOBODY
    assert watch.look(a=7) == Still([("a", 7)], [])


def test_one_is_frozen_as_long_as_it_stands_still() -> None:
    """Its burial may have failed."""
    watch = Watch()
    for _ in range(LOOKS):
        watch.look(a=7)
    for _ in range(3):
        assert watch.look(a=7) == Still([("a", 7)], [])


def test_one_that_beats_but_once_in_its_lease_is_not_frozen() -> None:
    watch = Watch()
    for counter in range(10):
        for _ in range(LOOKS):
            assert watch.look(a=counter) == NOBODY


def test_each_stands_still_for_itself() -> None:
    watch = Watch()
    for number in range(LOOKS):
        assert watch.look(a=7, b=number) == NOBODY
    assert watch.look(a=7, b=0) == Still([("a", 7)], [])
    assert watch.look(b=0) == NOBODY


def test_looks_out_of_turn_do_not_make_one_frozen_sooner() -> None:
    """A heartbeat may be asked for at any time; and a look may be delayed, and then come soon after another."""
    watch = Watch()
    for _ in range(LOOKS * 4):
        assert watch.look(a=7) == NOBODY
        watch.now -= 0.75 * BEAT


def test_looks_out_of_turn_count_for_nothing_when_much_time_passes_after_them() -> None:
    """This process stood still as well: it has to look for a whole lease before it says so of another."""
    watch = Watch()
    for _ in range(LOOKS * 4):
        watch.look(a=7)
        watch.now -= BEAT
    watch.now += 3600
    assert watch.look(a=7) == NOBODY


def test_time_alone_makes_nobody_frozen() -> None:
    """This process has been frozen as well, for an hour: it looks as often as ever before it says so."""
    watch = Watch()
    watch.look(a=7)
    for _ in range(LOOKS - 1):
        watch.now += 3600
        assert watch.look(a=7) == NOBODY
    watch.now += 3600
    assert watch.look(a=7) == Still([("a", 7)], [])


def test_the_first_look_counts_from_its_end() -> None:
    """It may have waited for a lock: the counter was read at some time until then."""
    watch = Watch(takes=0.9)
    for _ in range(LOOKS + 1):
        assert watch.look(a=7) == NOBODY
    assert watch.look(a=7) == Still([("a", 7)], [])


def test_who_begins_a_new_life_has_seen_nothing() -> None:
    watch = Watch()
    for _ in range(LOOKS):
        watch.look("a", a=7)
    watch.lookout.forget()
    assert watch.look("a", a=7) == NOBODY


# Signs of death.


def test_one_that_shows_a_sign_and_stands_still_is_dead_a_beat_and_a_quarter_later() -> None:
    """And not at the next beat: whoever lives has beaten by the time that is said here, and with a margin."""
    watch = Watch()
    assert watch.look(a=7) == NOBODY
    assert watch.look("a", a=8) == NOBODY
    began = watch.now - BEAT
    assert watch.look("a", a=8) == NOBODY
    assert watch.now == began + SIGN_BEATS * BEAT
    assert watch.look("a", a=8) == Still([], [("a", 8)])


def test_it_is_as_soon_where_it_has_stood_still_before() -> None:
    """What counts is how long it showed the sign: a sign may be seen long before the death, or after it."""
    watch = Watch()
    for _ in range(3):
        watch.look(a=7)
    for _ in range(2):
        assert watch.look("a", a=7) == NOBODY
    assert watch.look("a", a=7) == Still([], [("a", 7)])


def test_one_whose_counter_moves_is_never_dead() -> None:
    """Whatever signs it shows; and nobody looks more often because of it."""
    watch = Watch()
    began = watch.now
    for counter in range(100):
        assert watch.look("a", a=counter) == NOBODY
    assert watch.now == began + 100 * BEAT


def test_a_sign_that_goes_has_said_nothing() -> None:
    watch = Watch()
    for _ in range(2):
        assert watch.look("a", a=7) == NOBODY
        assert watch.look(a=7) == NOBODY
    assert watch.look("a", a=7) == NOBODY


def test_a_counter_that_moves_begins_the_wait_anew() -> None:
    watch = Watch()
    assert watch.look("a", a=7) == NOBODY
    assert watch.look("a", a=7) == NOBODY
    assert watch.look("a", a=8) == NOBODY
    assert watch.look("a", a=8) == NOBODY
    assert watch.look("a", a=8) == Still([], [("a", 8)])


def test_the_look_that_showed_the_sign_counts_from_its_end() -> None:
    watch = Watch(takes=0.5)
    assert watch.look("a", a=7) == NOBODY
    assert watch.look("a", a=7) == NOBODY
    assert watch.look("a", a=7) == Still([], [("a", 7)])
    assert watch.now - BEAT == 1000.0 + 0.5 + SIGN_BEATS * BEAT


def test_one_without_a_sign_is_not_dead_for_the_signs_of_others() -> None:
    watch = Watch()
    for _ in range(2):
        watch.look("a", a=7, b=3)
    assert watch.look("a", a=7, b=3) == Still([], [("a", 7)])


def test_one_whose_burial_failed_is_dead_at_the_next_look() -> None:
    """Which comes in its turn: never at once."""
    watch = Watch()
    for _ in range(3):
        watch.look("a", a=7)
    for _ in range(3):
        before = watch.now
        assert watch.look("a", a=7) == Still([], [("a", 7)])
        assert watch.now == before + BEAT


def test_after_a_look_that_failed_no_sign_counts_for_some_looks() -> None:
    """The store was out of reach for the others too: they show signs of death until they have reached it again."""
    watch = Watch(looks=10)
    watch.look("a", a=7)
    watch.lookout.miss()
    for _ in range(LOOKS):
        assert watch.look("ab", a=7, b=3) == NOBODY
    assert watch.look("ab", a=7, b=4) == NOBODY
    assert watch.look("ab", a=7, b=4) == NOBODY
    assert watch.look("ab", a=7, b=4) == Still([], [("a", 7), ("b", 4)])


def test_after_looks_that_failed_one_is_frozen_as_ever() -> None:
    watch = Watch()
    for _ in range(LOOKS):
        watch.look("a", a=7)
        watch.lookout.miss()
    assert watch.look("a", a=7) == Still([("a", 7)], [])


# The pace.


def test_where_a_lock_proves_a_death_a_lease_is_a_few_beats() -> None:
    assert Pace.of(10, proves_death=True) == Pace(2, LOOKS)
    assert Pace.of(60, proves_death=True) == Pace(12, LOOKS)


def test_where_nothing_proves_it_a_sign_is_seen_within_a_second() -> None:
    """And as many looks make a lease as it has beats."""
    assert Pace.of(10, proves_death=False) == Pace(1, 10)
    assert Pace.of(7.5, proves_death=False) == Pace(1, 8)
    assert Pace.of(5, proves_death=False) == Pace(1, LOOKS)
    assert Pace.of(1, proves_death=False) == Pace(0.2, LOOKS)
