"""`afterward.testing.fixture`: a bench as a pytest fixture, in a project's own tests."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

APP = """
    from fastapi import FastAPI
    from afterward import Afterward, BackgroundTasks

    app = FastAPI()
    tasks = Afterward()
    tasks.install(app)
    sent = []

    @tasks.task
    def send(to: str) -> None:
        if "@" not in to:
            raise ValueError("no address")
        sent.append(to)

    @app.post("/{to}")
    async def endpoint(to: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(send, to)
"""

TESTS = """
    import pytest
    from fastapi.testclient import TestClient
    import shop

    client = TestClient(shop.app)

    def test_first(bench):
        client.post("/ann@example.com")
        bench.assert_enqueued(shop.send, "ann@example.com")
        assert shop.sent == ["ann@example.com"]

    def test_each_test_begins_anew(bench):
        assert bench.jobs == []
        client.post("/bob@example.com")
        assert len(bench.jobs) == 1

    def test_without_naming_it():
        client.post("/carl@example.com")
        assert shop.sent[-1] == "carl@example.com"

    def test_fails():
        client.post("/nobody")
"""


def pytest_in(folder: Path, conftest: str) -> subprocess.CompletedProcess[str]:
    """What a project of three files says of itself."""
    for name, text in {"shop.py": APP, "conftest.py": conftest, "test_shop.py": TESTS}.items():
        (folder / name).write_text(dedent(text))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "-rA",
        "--rootdir",
        str(folder),
        str(folder),
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


def test_a_fixture_gives_each_test_a_fresh_bench(tmp_path: Path) -> None:
    """By the name it is assigned to. With `autouse`, every test is kept from the real store."""
    ran = pytest_in(
        tmp_path,
        """
        from afterward import testing
        from shop import tasks

        bench = testing.fixture(tasks, autouse=True)
        """,
    )
    assert "3 passed" in ran.stdout, ran.stdout
    assert "FAILED test_shop.py::test_fails - ValueError: no address" in ran.stdout
    assert not list(tmp_path.glob("afterward.db*"))


def test_a_fixture_may_last_longer(tmp_path: Path) -> None:
    """As long as any other; here, tests see what those before have enqueued."""
    ran = pytest_in(
        tmp_path,
        """
        from afterward import testing
        from shop import tasks

        bench = testing.fixture(tasks, autouse=True, scope="module", raise_failures=False)
        """,
    )
    assert "FAILED test_shop.py::test_each_test_begins_anew" in ran.stdout
    assert "3 passed" in ran.stdout, ran.stdout


def test_pytest_is_not_imported_where_no_fixture_is_made() -> None:
    """It need not even be there."""
    code = "import sys, afterward.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
    code = "import sys, afterward; sys.exit('afterward.testing' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
