"""One visit: what is looked at, in which order, and how it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw
from rich.text import Text

from afterward.cli.doctor.database import examine_commits, examine_database
from afterward.cli.doctor.finding import Finding, Level, ok, problem, refusal
from afterward.cli.doctor.life import examine_life
from afterward.cli.doctor.place import examine_place
from afterward.cli.doctor.program import examine_program
from afterward.cli.doctor.versions import examine_versions
from afterward.cli.exits import DONE, FAILURE
from afterward.cli.output import plain_console
from afterward.cli.paths import has_content
from afterward.cli.reading import NO_STORE_MEND, url_or_default
from afterward.cli.target import load
from afterward.cli.telling import printable
from afterward.errors import ConfigurationError
from afterward.sizes import many
from afterward.stores.address import store_of
from afterward.stores.base import Store
from afterward.stores.sqlite import SQLiteStore
from afterward.stores.sqlite.checkup import Checkup
from afterward.stores.sqlite.connect import what_is_wrong

CHECK_SECONDS = 30.0
"""How long to look for damage in the file, if nothing is said of it."""

_STYLES = {Level.ok: "green", Level.warning: "yellow", Level.problem: "bold red"}


def findings(target: str | None, url: str | None, seconds: float) -> list[Finding]:
    """All that there is to say of a program, if one is named, and of its stores, or the one of the URL."""
    found = list(examine_versions())
    known: set[str] | None = None
    stores: list[Store] = []
    if target is not None:
        try:
            program = load(target)
        except ConfigurationError as error:
            found.append(refusal("program", error, "mend what the traceback on standard error leads to"))
        else:
            found += examine_program(program)
            known = {name for afterward in program.afterwards for name in afterward.tasks}
            stores = [afterward.store for afterward in program.afterwards]
    if url is not None or not stores:
        stores = [store_of(url_or_default(url))]
    for store in stores:
        found += _examine(store, known, seconds)
    return found


def _examine(store: Store, known: set[str] | None, seconds: float) -> Iterator[Finding]:
    path = Path(store.location)
    if not isinstance(store, SQLiteStore):
        yield from _examine_server(store, known)
        return
    if has_content(path):
        yield from _examine_file(path, known, seconds)
    else:
        yield problem("store", f"there is no store at {path}", NO_STORE_MEND)
    yield from examine_place(path)
    if path.parent.is_dir():
        yield from examine_commits(path.parent)


def _examine_server(store: Store, known: set[str] | None) -> Iterator[Finding]:
    from afterward.cli.doctor.server import examine_server
    from afterward.stores.postgres import PostgresStore

    if isinstance(store, PostgresStore):
        yield from examine_server(store, known)
    else:
        yield ok("store", f"{store.location} is no file and no server, and not looked at")


def _examine_file(path: Path, known: set[str] | None, seconds: float) -> Iterator[Finding]:
    try:
        checkup = Checkup(path)
    except apsw.Error as error:
        yield refusal("store", what_is_wrong(error, path), "look at the file, its folder and its disk")
        return
    try:
        if not checkup.is_ours:
            yield problem("store", f"{path} is a database of another program", "name another file: it is not touched")
            return
        yield ok("store", str(path))
        yield from examine_database(checkup, seconds)
        yield from examine_life(checkup, known)
    except apsw.Error as error:
        yield refusal("store", what_is_wrong(error, path), "look at the file, its folder and its disk")
    finally:
        checkup.close()


def tell(found: Sequence[Finding], *, strict: bool, as_json: bool) -> int:
    """Print them; the exit code."""
    problems, warnings = (sum(f.level is level for f in found) for level in (Level.problem, Level.warning))
    if as_json:
        facts = [{"level": f.level.value, "subject": f.subject, "said": f.said, "fix": f.mend} for f in found]
        print(json.dumps({"problems": problems, "warnings": warnings, "findings": facts}, indent=2))
    else:
        _print(found)
        print(f"{many(problems, 'problem')}, {many(warnings, 'warning')}")
    return FAILURE if problems or (strict and warnings) else DONE


def _print(found: Sequence[Finding]) -> None:
    console = plain_console()
    width = max(len(f.subject) for f in found)
    for f in found:
        level = (f"{f.level.value:<7}  ", _STYLES[f.level])
        console.print(Text.assemble(level, f"{f.subject:<{width}}  ", printable(f.said)), soft_wrap=True)
        if f.mend:
            console.print(Text(" " * (width + 11) + f"fix: {printable(f.mend)}"), soft_wrap=True)
