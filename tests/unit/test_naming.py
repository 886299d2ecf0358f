"""The name of a function of `__main__`: one under which other processes find it, or none. In real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# Says the names of its functions when it is the main program, and can be imported for next to nothing.
PROGRAM = """\
def send(): ...

class Mail:
    def send(self): ...

if __name__ == "__main__":
    from afterward import TaskError
    from afterward.naming import name_of

    for function in (send, Mail.send):
        try:
            print(name_of(function))
        except TaskError as error:
            print("TaskError:", error)
"""

BOTH = """\
from afterward import Afterward

tasks = Afterward("sqlite:///never-opened.db")

@tasks.task
def send(): ...

if __name__ == "__main__":
    import both

    print(send.name, both.send.name, both.send is send)
"""

SPAWNING = """\
import multiprocessing

from afterward.naming import name_of

def send(): ...

def tell():
    print(name_of(send), flush=True)

if __name__ == "__main__":
    tell()
    child = multiprocessing.get_context("spawn").Process(target=tell)
    child.start()
    child.join()
"""

# How a program is started.
STARTS: dict[str, list[str]] = {
    "script": ["app.py"],
    "script elsewhere": ["../app.py"],
    "module of a package": ["-m", "shop.mail"],
    "package": ["-m", "shop"],
    "module of a package, by its path": ["shop/mail.py"],
    "code": ["-c", PROGRAM],
    "no name of a module": ["my-app.py"],
    "folder": ["bundle"],
    "safe path": ["-P", "app.py"],
    "both": ["-m", "both"],
    "spawning": ["spawning.py"],
}


def python(folder: Path, *arguments: str, path: str = "") -> list[str]:
    """The lines that Python prints, started with these arguments in this folder."""
    paths = os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def finds(folder: Path, names: list[str], path: str = "") -> list[str]:
    """What another process finds by these names, when it starts in the same folder."""
    finding = "import importlib, operator\n" + "".join(
        f"print(operator.attrgetter({place!r})(importlib.import_module({module!r})).__qualname__)\n"
        for module, _, place in (name.partition(":") for name in names)
    )
    return python(folder, "-c", finding, path=path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts, a package with a module and a `__main__`, and a folder that is a program."""
    folder = tmp_path_factory.mktemp("programs")
    for name in ("app.py", "my-app.py", "shop/__init__.py", "shop/mail.py", "shop/__main__.py", "bundle/__main__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("" if name.endswith("__init__.py") else PROGRAM)
    (folder / "both.py").write_text(BOTH)
    (folder / "spawning.py").write_text(SPAWNING)
    (folder / "elsewhere").mkdir()
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> Iterator[dict[str, list[str]]]:
    """What each program said of itself; they run at the same time, for each takes long to start."""

    def start(how: str) -> list[str]:
        return python(folder / "elsewhere" if how == "script elsewhere" else folder, *STARTS[how])

    with ThreadPoolExecutor(4) as starting:
        yield dict(zip(STARTS, starting.map(start, STARTS), strict=True))


@pytest.mark.parametrize(
    ("how", "module"),
    [
        ("script", "app"),
        ("script elsewhere", "app"),
        ("module of a package", "shop.mail"),
        ("package", "shop.__main__"),
    ],
)
def test_the_main_program_is_called_by_the_name_of_its_module(
    said: dict[str, list[str]], folder: Path, how: str, module: str
) -> None:
    """And another process finds it by that."""
    assert said[how] == [f"{module}:send", f"{module}:Mail.send"]
    assert finds(folder, said[how]) == ["send", "Mail.send"]


@pytest.mark.parametrize("how", ["code", "no name of a module", "folder", "safe path"])
def test_a_main_program_that_no_other_process_can_import_is_refused(said: dict[str, list[str]], how: str) -> None:
    """With what to do."""
    assert len(said[how]) == 2
    for line in said[how]:
        assert line.startswith("TaskError: ")
        assert "__main__" in line
        assert "move it into a module, or give @tasks.task(name=" in line


def test_a_module_of_a_package_run_by_its_path_is_called_by_what_is_found(
    said: dict[str, list[str]], folder: Path
) -> None:
    """Python looks in the folder of the script then, and not in the package's."""
    names = said["module of a package, by its path"]
    assert names == ["mail:send", "mail:Mail.send"]
    assert finds(folder, names, path=str(folder / "shop")) == ["send", "Mail.send"]


def test_a_task_of_the_main_program_is_the_same_task_when_it_is_imported(said: dict[str, list[str]]) -> None:
    """What the program stores, a worker that imports it finds: one name for one function."""
    assert said["both"] == ["both:send both:send False"]


def test_in_a_spawned_child_the_name_is_the_same(said: dict[str, list[str]]) -> None:
    """There, `multiprocessing` has loaded the main program under a name of its own."""
    assert said["spawning"] == ["spawning:send"] * 2
