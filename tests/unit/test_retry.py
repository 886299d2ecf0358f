"""Whether and when a failed attempt is tried again: a pure decision."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterward.errors import Retry as RetryWanted
from afterward.job import Failed, Failure, Retry
from afterward.retry import RetryPolicy, after_failure, backoff_seconds

OOPS = Failure("OopsError", "it did not work")

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 1000),
    backoff=st.floats(0, 1e6),
    max_backoff=st.floats(0, 1e9),
)
jitters = st.floats(0, 1, exclude_max=True)


def ceiling(failures: int, policy: RetryPolicy) -> float:
    return backoff_seconds(failures, policy, lambda: 1.0)


@pytest.mark.parametrize(
    ("failures", "longest"),
    [(1, 1), (2, 2), (3, 4), (4, 8), (10, 512), (11, 600), (12, 600), (1000, 600), (10**9, 600)],
)
def test_by_default_the_longest_wait_doubles_from_1_s_to_10_min(failures: int, longest: float) -> None:
    assert ceiling(failures, RetryPolicy()) == longest


@given(failures=st.integers(1, 10**6), policy=policies, jitter=jitters)
def test_a_wait_is_a_random_part_of_its_longest(failures: int, policy: RetryPolicy, jitter: float) -> None:
    """Full jitter: from nothing to `min(max_backoff, backoff * 2**(n-1))`, never beyond, never negative."""
    wait = backoff_seconds(failures, policy, lambda: jitter)
    assert 0 <= wait <= policy.max_backoff
    assert wait == pytest.approx(jitter * ceiling(failures, policy))
    assert backoff_seconds(failures, policy, lambda: 0.0) == 0


@given(failures=st.integers(1, 60), policy=policies)
def test_the_longest_wait_doubles_until_its_limit(failures: int, policy: RetryPolicy) -> None:
    now, then = ceiling(failures, policy), ceiling(failures + 1, policy)
    assert then == pytest.approx(min(policy.max_backoff, 2 * now))
    assert now == pytest.approx(min(policy.max_backoff, policy.backoff * 2.0 ** (failures - 1)))


@given(policy=policies, before=st.integers(0, 2000), jitter=jitters)
def test_max_attempts_counts_failures(policy: RetryPolicy, before: int, jitter: float) -> None:
    """The failure that reaches it is the last; each before it is tried again."""
    outcome = after_failure(ValueError(), OOPS, before, policy, lambda: jitter)
    if before + 1 >= policy.max_attempts:
        assert outcome == Failed(OOPS)
    else:
        assert outcome == Retry(OOPS, backoff_seconds(before + 1, policy, lambda: jitter))


@given(policy=policies)
def test_a_job_is_tried_max_attempts_times_and_no_more(policy: RetryPolicy) -> None:
    failures = 0
    while isinstance(after_failure(ValueError(), OOPS, failures, policy, lambda: 0.5), Retry):
        failures += 1
    assert failures + 1 == policy.max_attempts


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (ValueError(), True),
        (RuntimeError(), True),
        (TimeoutError(), True),
        (asyncio.CancelledError(), False),
        (SystemExit(1), False),
        (KeyboardInterrupt(), False),
        (GeneratorExit(), False),
    ],
    ids=repr,
)
def test_by_default_every_exception_is_tried_again_and_what_ends_programs_is_not(
    error: BaseException, wanted: bool
) -> None:
    assert RetryPolicy().wants(1, error) is wanted


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError(), True),
        (ConnectionError(), True),
        (PermissionError(), False),
        (ValueError(), False),
        (SystemExit(), False),
    ],
    ids=repr,
)
def test_rules_name_exceptions_and_their_subclasses(error: BaseException, wanted: bool) -> None:
    """What is to be given up on wins over what is to be tried again."""
    assert RetryPolicy(retry_on=(OSError,), give_up_on=(PermissionError,)).wants(1, error) is wanted


def test_what_is_not_wanted_again_fails_at_once() -> None:
    policy = RetryPolicy(max_attempts=100, give_up_on=(ValueError,))
    assert after_failure(ValueError(), OOPS, 0, policy, lambda: 0.5) == Failed(OOPS)
    assert isinstance(after_failure(OSError(), OOPS, 0, policy, lambda: 0.5), Retry)


def test_even_what_ends_programs_can_be_tried_again_by_name() -> None:
    policy = RetryPolicy(retry_on=(Exception, SystemExit))
    assert isinstance(after_failure(SystemExit(1), OOPS, 0, policy, lambda: 0.5), Retry)


@pytest.mark.parametrize("answer", ["soon", "5", [], object, float("nan"), float("inf")], ids=str)
def test_an_answer_that_is_no_span_of_time_is_the_usual_back_off_and_said(answer: Any) -> None:
    policy = RetryPolicy(retry_on=lambda failures, error: answer)
    outcome = after_failure(ValueError(), OOPS, 0, policy, lambda: 0.5)
    assert isinstance(outcome, Retry)
    assert outcome.delay == 0.5
    assert outcome.failure.message.startswith(f"{OOPS.message} (retry_on= answered a {type(answer).__name__} ")


@pytest.mark.parametrize(("span", "seconds"), [(0, 0), (1.5, 1.5), (timedelta(minutes=1), 60), (-1, 0), (1e300, 1e10)])
def test_a_span_of_time_is_what_is_waited(span: Any, seconds: float) -> None:
    """One that is over already is at once, and none is longer than a store can keep."""
    policy = RetryPolicy(retry_on=lambda failures, error: span)
    assert after_failure(ValueError(), OOPS, 0, policy, lambda: 0.5) == Retry(OOPS, seconds)
    assert after_failure(RetryWanted(in_=span), OOPS, 0, RetryPolicy(), lambda: 0.5) == Retry(OOPS, seconds)


@pytest.mark.parametrize("span", ["soon", "5", [], object, float("nan"), float("inf")], ids=str)
def test_a_retry_in_what_is_no_span_of_time_is_refused_with_the_mend(span: Any) -> None:
    with pytest.raises(ValueError, match="takes a timedelta, or a number of seconds"):
        RetryWanted(in_=span)


def test_the_decision_asks_for_one_random_number_and_only_when_it_waits() -> None:
    """It reads no clock and no state: the same arguments give the same answer."""
    drawn: list[float] = []

    def draw() -> float:
        drawn.append(0.25)
        return 0.25

    first = after_failure(ValueError(), OOPS, 2, RetryPolicy(), draw)
    assert first == after_failure(ValueError(), OOPS, 2, RetryPolicy(), draw) == Retry(OOPS, 1.0)
    assert len(drawn) == 2
    after_failure(ValueError(), OOPS, 4, RetryPolicy(), draw)
    assert len(drawn) == 2
