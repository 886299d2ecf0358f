"""A child process that does not come to run its attempt is not waited for without end."""

from collections.abc import AsyncIterator

import pytest

from afterward.engine import process
from afterward.engine.pool import Pool
from afterward.job import Lease, Released
from tests.support.hanging import hang
from tests.support.reports import unheard

pytestmark = pytest.mark.anyio


async def no_chunks(_file: str) -> AsyncIterator[bytes]:
    return
    yield


async def test_a_module_that_hangs_as_it_is_imported_costs_the_job_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has not begun: the child is killed, and the job is released with a delay."""
    monkeypatch.setenv("HANGS_AT_IMPORT", "1")
    monkeypatch.setattr(process, "_BEGIN_SECONDS", 1.0)
    outcome = await Pool(no_chunks).run(hang, Lease("job", 3, "process", hang.name, "{}", deaths=2), unheard())
    assert isinstance(outcome, Released)
    assert "had not begun after 1 s" in outcome.note
    assert outcome.delay > 0
