"""What a worker that has nothing to do costs a PostgreSQL server."""

import time

from tests.faults.patience import wait_until
from tests.support.served_site import ServedSite

STATEMENTS_A_SECOND = 2


def test_an_idle_worker_makes_at_most_two_statements_a_second(served: ServedSite) -> None:
    """It beats once a second; calls reach it, so it looks for jobs far less often."""
    worker = served.work()
    served.serve(worker=0).stop()
    wait_until(lambda: list(served.tables.processes().values()) == [worker.pid])
    [identity] = served.tables.processes()
    wait_until(lambda: served.tables.beats()[identity] > 2, "it has settled")
    first = served.tables.beats()[identity]
    served.forget_statements()
    began, asked = time.monotonic(), served.tables.asked
    wait_until(lambda: served.tables.beats()[identity] >= first + 12, "it has beaten twelve times")
    passed = time.monotonic() - began
    statements, asked = served.statements(), served.tables.asked - asked
    total = sum(statements.values()) - asked
    for statement, calls in statements.items():
        print(f"{calls:4} {statement[:100]!r}")
    print(f"{total} statements in {passed:.1f} s, and {asked} of the test's own")
    assert total <= STATEMENTS_A_SECOND * passed
    assert total >= 12, "what is counted is its own"
