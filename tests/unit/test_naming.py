"""The name of a function of `__main__`: one under which other processes find it, or none. In real processes."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROGRAM = """\
import sys
from afterward import TaskError
from afterward.task import name_of

def send(): ...

class Mail:
    def send(self): ...

if __name__ == "__main__":
    for function in (send, Mail.send):
        try:
            print(name_of(function))
        except TaskError as error:
            print("TaskError:", error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A script, a package with a module and a `__main__`, and things that are no modules."""
    (tmp_path / "app.py").write_text(PROGRAM)
    (tmp_path / "my-app.py").write_text(PROGRAM)
    (tmp_path / "app").with_name("script").write_text(PROGRAM)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "mail.py").write_text(PROGRAM)
    (tmp_path / "shop" / "__main__.py").write_text(PROGRAM)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "__main__.py").write_text(PROGRAM)
    with zipfile.ZipFile(tmp_path / "bundle.pyz", "w") as bundle:
        bundle.writestr("__main__.py", PROGRAM)
    return tmp_path


def said(folder: Path, *arguments: str, stdin: str = "", **environment: str) -> list[str]:
    """The lines that Python prints, started with these arguments in this folder."""
    python = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert python.returncode == 0, python.stderr
    return python.stdout.splitlines()


def can_be_found(folder: Path, name: str, *paths: str) -> bool:
    """Does another process, that starts in the same folder, find the function by its name?"""
    module, _, place = name.partition(":")
    finding = f"import importlib, operator; print(operator.attrgetter({place!r})(importlib.import_module({module!r})).__name__)"
    return said(folder, "-c", finding, PYTHONPATH=os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])) == ["send"]


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["app.py"], "app"),
        (["./app.py"], "app"),
        (["-m", "app"], "app"),
        (["-m", "shop.mail"], "shop.mail"),
        (["-m", "shop"], "shop.__main__"),
    ],
    ids=" ".join,
)
def test_the_main_program_is_called_by_the_name_of_its_module(folder: Path, arguments: list[str], module: str) -> None:
    """And another process finds it by that."""
    names = said(folder, *arguments)
    assert names == [f"{module}:send", f"{module}:Mail.send"]
    assert all(can_be_found(folder, name) for name in names)


def test_a_script_elsewhere_is_found_where_it_is(folder: Path) -> None:
    """Python looks first in the folder of the script, wherever it was started from."""
    (folder / "elsewhere").mkdir()
    names = said(folder / "elsewhere", str(folder / "app.py"))
    assert names == ["app:send", "app:Mail.send"]


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["-c", PROGRAM], ""),
        (["-"], PROGRAM),
        (["-i", "-q", "-c", PROGRAM], ""),
        (["my-app.py"], ""),
        (["script"], ""),
        (["bundle"], ""),
        (["bundle.pyz"], ""),
        (["-P", "app.py"], ""),
        (["-I", "app.py"], ""),
    ],
    ids=["code", "standard input", "interactive", "no module's name", "no .py", "folder", "archive", "safe path", "isolated"],
)
def test_a_main_program_that_no_other_process_can_import_is_refused(folder: Path, arguments: list[str], stdin: str) -> None:
    """With what to do."""
    lines = said(folder, *arguments, stdin=stdin)
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("TaskError: ")
        assert "__main__" in line
        assert "move it into a module, or give @tasks.task(name=" in line


def test_a_module_inside_a_package_run_by_its_path_is_refused_or_found(folder: Path) -> None:
    """Its folder is on the path then, and not the package's."""
    for name in said(folder, "shop/mail.py"):
        assert name.startswith("TaskError: ") or can_be_found(folder, name, str(folder / "shop"))


def test_a_task_of_the_main_program_is_the_same_task_when_it_is_imported(folder: Path) -> None:
    """What the program stores, a worker that imports it finds: one name for one function."""
    (folder / "both.py").write_text(
        "from afterward import Afterward\n"
        "tasks = Afterward('sqlite:///never-opened.db')\n"
        "@tasks.task\n"
        "def send(): ...\n"
        "if __name__ == '__main__':\n"
        "    import both\n"
        "    print(send.name, both.send.name, both.send is send)\n"
    )
    assert said(folder, "both.py") == ["both:send both:send False"]
    assert said(folder, "-m", "both") == ["both:send both:send False"]


def test_in_a_spawned_child_the_name_is_the_same(folder: Path) -> None:
    """There, the main program is loaded under another name by `multiprocessing`."""
    (folder / "spawning.py").write_text(
        "import multiprocessing\n"
        "from afterward.task import name_of\n"
        "def send(): ...\n"
        "def tell(): print(name_of(send), flush=True)\n"
        "if __name__ == '__main__':\n"
        "    tell()\n"
        "    child = multiprocessing.get_context('spawn').Process(target=tell)\n"
        "    child.start(); child.join()\n"
    )
    assert said(folder, "spawning.py") == ["spawning:send"] * 2
    assert said(folder, "-m", "spawning") == ["spawning:send"] * 2
