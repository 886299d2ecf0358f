"""mypy --strict and pyright, both, accept what is right and refuse what is wrong, on exactly the lines marked."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

pytestmark = pytest.mark.timeout(300)  # a checker that has nothing in its cache reads all of FastAPI first


def mypy(file: Path) -> dict[int, str]:
    """The lines that mypy complains of, and why."""
    run = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--python-version", "3.11", "--config-file", "",
            "--no-error-summary", "--hide-error-context", "--follow-imports", "silent",
            "--cache-dir", REPOSITORY / ".mypy_cache", file,
        ],
        check=False, capture_output=True, text=True, cwd=file.parent,
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = re.findall(rf"^{re.escape(file.name)}:(\d+): error: (.*)$", run.stdout, re.MULTILINE)
    assert len(found) == len([line for line in run.stdout.splitlines() if ": error: " in line]), run.stdout
    return {int(line): message for line, message in found}


def pyright(file: Path) -> dict[int, str]:
    """The lines that pyright complains of, and why."""
    project = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "include": [file.name]}
    (file.parent / "pyrightconfig.json").write_text(json.dumps(project))
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--project", file.parent, "--outputjson"],
        check=False, capture_output=True, text=True, cwd=file.parent,
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )  # fmt: skip
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] == 1, run.stdout + run.stderr
    return {
        problem["range"]["start"]["line"] + 1: problem["message"]
        for problem in report["generalDiagnostics"]
        if problem["severity"] == "error"
    }


CHECKERS = [mypy, pyright]


@pytest.mark.parametrize("checker", CHECKERS)
def test_right_uses_pass(checker: Callable[[Path], dict[int, str]], tmp_path: Path) -> None:
    """The container is a class to them, a task is the function it was, a handle is a handle."""
    file = tmp_path / "right_uses.py"
    shutil.copy(HERE / "right_uses.py", file)
    assert checker(file) == {}


@pytest.mark.parametrize("checker", CHECKERS)
def test_wrong_uses_are_errors(checker: Callable[[Path], dict[int, str]], tmp_path: Path) -> None:
    """A wrong argument at `add_task` is found before the program runs."""
    file = tmp_path / "wrong_uses.py"
    shutil.copy(HERE / "wrong_uses.py.txt", file)
    marked = {n for n, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("  # error")}
    found = checker(file)
    lines = file.read_text().splitlines()
    assert {n: lines[n - 1] for n in marked - found.keys()} == {}, "not refused"
    assert {n: (lines[n - 1], found[n]) for n in found.keys() - marked} == {}, "refused, though right"
