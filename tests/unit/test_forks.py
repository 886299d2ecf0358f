"""What has to be done in a forked child is done there, and keeps nothing alive."""

import asyncio
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from afterward.forks import call_in_child
from afterward.life import Life
from afterward.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


class Noted:
    """Notes where it is called."""

    def __init__(self) -> None:
        self.called_in: list[int] = []
        call_in_child(self.note)

    def note(self) -> None:
        self.called_in.append(os.getpid())


def exit_code_of_child(noted: Noted) -> int:
    child = os.fork()
    if not child:
        os._exit(17 if noted.called_in == [os.getpid()] else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_who_lives_is_called_in_the_child_alone() -> None:
    noted = Noted()
    assert exit_code_of_child(noted) == 17
    assert not noted.called_in


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_who_is_gone_is_not_called() -> None:
    gone = Noted()
    calls = gone.called_in
    del gone
    gc.collect()
    left = Noted()
    left.called_in = calls
    assert exit_code_of_child(left) == 17  # once, and not by both


def test_a_life_that_is_over_is_let_go(tmp_path: Path) -> None:
    async def live() -> list[weakref.ref[object]]:
        store = SQLiteStore(tmp_path / "jobs.db")
        life = Life.on(store, 5.0)
        await life.liveness.start()
        await life.liveness.stop()
        return [weakref.ref(store), weakref.ref(life.liveness)]

    lived = asyncio.run(live())
    gc.collect()
    assert [one() for one in lived] == [None, None]


def test_a_process_that_ends_while_one_lives_says_nothing() -> None:
    """What is kept of it goes in whatever order the interpreter takes its modules apart."""
    script = """
from afterward.stores.sqlite import SQLiteStore
from afterward.life import Life
store = SQLiteStore("jobs.db")
life = Life.on(store, 5.0)
life.itself = life
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")
