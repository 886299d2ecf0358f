"""Unified diffs, applied to the letter: a context that is not there, or a count that is wrong, is an error."""

import re
from pathlib import Path

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


def apply(diff: str, folder: Path) -> Path:
    """Apply a diff of one file, made with `a/` and `b/`, in a folder; the file that it changed or made."""
    old, new, *lines = diff.splitlines()
    assert new.startswith("+++ b/"), diff
    file = folder / new.removeprefix("+++ b/")
    if old == "--- /dev/null":
        assert not file.exists(), f"{file} is there already"
        before: list[str] = []
    else:
        assert old == f"--- a/{new.removeprefix('+++ b/')}", diff
        before = file.read_text().splitlines()
    file.write_text("\n".join(_applied(lines, before)) + "\n")
    return file


def _applied(lines: list[str], before: list[str]) -> list[str]:
    after: list[str] = []
    place = 0
    while lines:
        hunk = _HUNK.match(lines.pop(0))
        assert hunk is not None, lines
        start, olds, news = int(hunk[1]), int(hunk[2] or 1), int(hunk[4] or 1)
        body = [lines.pop(0) for _ in range(next((i for i, line in enumerate(lines) if line[:2] == "@@"), len(lines)))]
        taken = [line[1:] for line in body if line[:1] in {" ", "-", ""}]
        given = [line[1:] for line in body if line[:1] in {" ", "+", ""}]
        assert (len(taken), len(given)) == (olds, news), f"{hunk[0]} counts wrongly"
        begin = start - 1 if olds else start
        assert before[begin : begin + olds] == taken, f"{hunk[0]} does not fit"
        after += before[place:begin] + given
        assert len(after) - len(given) == (int(hunk[3]) - 1 if news else int(hunk[3])), f"{hunk[0]} is placed wrongly"
        place = begin + olds
    return after + before[place:]
