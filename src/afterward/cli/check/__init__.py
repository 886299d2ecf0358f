"""`afterward check`: what a code base would lose, told from its text alone; nothing of it is imported or run."""

from __future__ import annotations

import gc
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from afterward.cli.check.codebase import CodeBase
from afterward.cli.check.files import python_files
from afterward.cli.check.finding import CANNOT_TELL, Finding, Report
from afterward.cli.check.printing import print_report
from afterward.cli.check.rules import Rules

__all__ = ["Finding", "Report", "check", "print_report"]


def check(paths: Sequence[Path]) -> Report:
    """Check the files, and the folders with all that is below them. The paths must exist."""
    folders = [path.absolute() for path in paths if path.is_dir()]
    code = CodeBase(python_files(paths), folders)
    rules = Rules(code)
    with _without_collections():
        said = [finding for module in code.modules_of_interest() for finding in rules.of_module(module)]
        said += rules.of_all()
        code.parse_the_rest()
    said = sorted({*said, *code.unreadable})
    findings = [finding for finding in said if finding.rule != CANNOT_TELL]
    return Report(findings, [finding for finding in said if finding.rule == CANNOT_TELL], len(code.files))


@contextmanager
def _without_collections() -> Generator[None]:
    """Trees have no circles, and millions of nodes: looking for circles in them takes most of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
