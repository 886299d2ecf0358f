"""FastAPI's and Starlette's own tests, with the import swapped: `from afterward import BackgroundTasks`.

Takes the source distributions of the versions that are installed here, writes afterward's classes in place of theirs in
the tests that concern background tasks, dependencies and responses (and in the examples that those tests run). Runs
those in which there was anything to swap on apps as they are, and all of them on apps that afterward is installed on.

    python -m tests.support.upstream [pytest options]
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

SWAPPED = {
    "fastapi": {"BackgroundTasks"},
    "fastapi.background": {"BackgroundTasks"},
    "starlette.background": {"BackgroundTask", "BackgroundTasks"},
}
"""Which names of which modules are taken from afterward."""

NEEDS = [
    "asttokens==3.0.2",
    "attrs==26.1.0",
    "blockbuster==1.5.29",
    "dirty-equals==0.11",
    "dnspython==2.8.0",
    "email-validator==2.3.0",
    "executing==2.3.0",
    "forbiddenfruit==0.1.4",
    "inline-snapshot==0.36.1",
    "itsdangerous==2.2.0",
    "jinja2==3.1.6",
    "markupsafe==3.0.4",
    "opentelemetry-api==1.45.2",
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-semantic-conventions==0.66b2",
    "orjson==3.13.0",
    "outcome==1.3.0.post0",
    "python-multipart==0.0.34",
    "pyyaml==6.0.3",
    "sniffio==1.3.1",
    "sortedcontainers==2.4.0",
    "trio==0.34.0",
    "ujson==6.1.0",
]
"""What the tests import beside what is installed here. Complete: installed without what they in turn ask for."""


@dataclass(frozen=True)
class Suite:
    """The tests of one project. `examples`: tests that have nothing to swap themselves, but in the examples they run.

    `cannot_apply`: parts of the names of tests that are left out, each with the reason; `installed`: more of them,
    where afterward is installed on every app.
    """

    project: str
    tests: Sequence[str]
    examples: Sequence[str] = ()
    cannot_apply: Mapping[str, str] = field(default_factory=dict[str, str])
    cannot_apply_installed: Mapping[str, str] = field(default_factory=dict[str, str])


SUITES = [
    Suite(
        "starlette",
        [
            "tests/test_applications.py",
            "tests/test_background.py",
            "tests/test_endpoints.py",
            "tests/test_exceptions.py",
            "tests/test_responses.py",
            "tests/test_routing.py",
            "tests/test_testclient.py",
            "tests/test_websockets.py",
            "tests/middleware/test_*.py",
        ],
        cannot_apply={"test_websocket_headers": "expects a decoder that the client has only where zstd is installed"},
        cannot_apply_installed={"trio": "durable tasks are stored and run on asyncio"},
    ),
    Suite(
        "fastapi",
        [
            "tests/test_async_dependency_cleanup.py",
            "tests/test_callable_endpoint.py",
            "tests/test_custom_middleware_exception.py",
            "tests/test_custom_route_class.py",
            "tests/test_dep*.py",
            "tests/test_exception_handlers.py",
            "tests/test_frontend.py",
            "tests/test_http_connection_injection.py",
            "tests/test_include_route.py",
            "tests/test_response*.py",
            "tests/test_route*.py",
            "tests/test_security_scopes*.py",
            "tests/test_sse.py",
            "tests/test_stream_*.py",
            "tests/test_telemetry/test_background.py",
            "tests/test_ws_*.py",
            "tests/test_tutorial/test_background_tasks/*.py",
            "tests/test_tutorial/test_custom_response/*.py",
            "tests/test_tutorial/test_dependencies/*.py",
            "tests/test_tutorial/test_handling_errors/*.py",
            "tests/test_tutorial/test_middleware/*.py",
            "tests/test_tutorial/test_response_*/*.py",
            "tests/test_tutorial/test_server_sent_events/*.py",
            "tests/test_tutorial/test_stream_data/*.py",
            "tests/test_tutorial/test_sub_applications/*.py",
            "tests/test_tutorial/test_testing_dependencies/*.py",
            "tests/test_tutorial/test_websockets/*.py",
        ],
        examples=["tests/test_tutorial/test_background_tasks/*.py"],
        cannot_apply={
            "test_background_task_integrations": "asks for three other products that patch Starlette's class",
            "test_websocket_handle_disconnection": "hangs by itself at times: accepts first, registers then",
        },
        cannot_apply_installed={
            "trio": "durable tasks are stored and run on asyncio",
            "test_app_can_be_reused_across_event_loops": "one of its event loops is trio's",
        },
    ),
]

PLUGIN = '''
"""Loaded by pytest in the tests of FastAPI and Starlette."""

import itertools
import os


def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group(name): of a plugin that is not needed here")


def pytest_collection_modifyitems(config, items):
    reasons = dict(pair.split("=", 1) for pair in os.environ["UPSTREAM_CANNOT_APPLY"].splitlines())
    kept, dropped = [], []
    for item in items:
        (dropped if any(part in item.nodeid for part in reasons) else kept).append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept


if folder := os.environ.get("UPSTREAM_INSTALL_IN"):
    from fastapi import FastAPI
    from starlette.applications import Starlette

    from afterward import Afterward

    numbers = itertools.count()

    def installing(init):
        def init_and_install(self, *args, **kwargs):
            init(self, *args, **kwargs)
            Afterward(f"sqlite:///{folder}/{next(numbers)}.db").install(self)

        return init_and_install

    FastAPI.__init__ = installing(FastAPI.__init__)
    Starlette.__init__ = installing(Starlette.__init__)
'''


def main(options: Sequence[str] = ()) -> int:
    """Run all of it; the exit code says whether all of it passed."""
    with tempfile.TemporaryDirectory(prefix="upstream-") as name:
        folder = Path(name)
        fetch_needs(folder / "needs")
        (folder / "needs" / "upstream_plugin.py").write_text(PLUGIN)
        failed = [
            f"{suite.project} {version(suite.project)} ({'installed' if installed else 'as it is'})"
            for suite in SUITES
            for source, swapped in [fetch_source(suite.project, folder)]
            for installed in (False, True)
            if run(suite, source, swapped, installed=installed, options=options) != 0
        ]
    if failed:
        print(f"== failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def fetch_needs(target: Path) -> None:
    """Install what the tests need in a folder of its own: this environment stays as it is."""
    pip("install", "--no-deps", "--target", str(target), *NEEDS)


def fetch_source(project: str, folder: Path) -> tuple[Path, set[Path]]:
    """The source distribution of the version that is installed here, and the files in it in which we are imported."""
    pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), f"{project}=={version(project)}")
    [archive] = folder.glob(f"{project}-*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    source = archive.with_name(archive.name.removesuffix(".tar.gz"))
    shutil.rmtree(source / project)  # what is installed is what is tested
    swapped = {path for where in ("tests", "docs_src") for path in (source / where).rglob("*.py") if swap(path)}
    print(f"== {source.name}: swapped the import in {len(swapped)} files", file=sys.stderr)
    assert swapped, f"no import was found to swap in {source}"
    return source, swapped


def swap(path: Path) -> bool:
    """Import ours in place of theirs; whether there was anything to swap."""
    text = path.read_text(encoding="utf-8")
    if "BackgroundTask" not in text:
        return False
    lines = text.splitlines(keepends=True)
    swapped = False
    for node in reversed(list(ast.walk(ast.parse(text)))):
        names = SWAPPED.get(node.module or "", set()) if isinstance(node, ast.ImportFrom) else set[str]()
        if not isinstance(node, ast.ImportFrom) or not any(alias.name in names for alias in node.names):
            continue
        ours = [alias for alias in node.names if alias.name in names]
        theirs = [alias for alias in node.names if alias.name not in names]
        imports = [ast.ImportFrom("afterward", ours, 0)]
        if theirs:
            imports.append(ast.ImportFrom(node.module, theirs, 0))
        indent = re.match(r"\s*", lines[node.lineno - 1])
        assert indent is not None
        lines[node.lineno - 1 : node.end_lineno] = [f"{indent[0]}{ast.unparse(new)}\n" for new in imports]
        swapped = True
    if swapped:
        path.write_text("".join(lines), encoding="utf-8")
    return swapped


def run(suite: Suite, source: Path, swapped: set[Path], *, installed: bool, options: Sequence[str]) -> int:
    """Run the tests of one project in a process of its own; its exit code."""
    tests = {path for pattern in suite.tests for path in source.glob(pattern)}
    if not installed:
        tests &= swapped | {path for pattern in suite.examples for path in source.glob(pattern)}
    cannot_apply = {**suite.cannot_apply, **(suite.cannot_apply_installed if installed else {})}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AFTERWARD_")} | {
        "PYTHONPATH": str(source.parent / "needs"),
        "UPSTREAM_CANNOT_APPLY": "\n".join(f"{part}={reason}" for part, reason in cannot_apply.items()),
    }
    if installed:
        databases = source.parent / f"{suite.project}-databases"
        databases.mkdir()
        environment["UPSTREAM_INSTALL_IN"] = str(databases)
    apps = "afterward installed on every app" if installed else "apps as they are"
    print(f"== {source.name}, {apps}", file=sys.stderr)
    # Tests of an older version are run with newer neighbours: what those call deprecated is not what is tested here.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "upstream_plugin", "-p", "no:cacheprovider"]
    command += ["-W", "ignore::DeprecationWarning", "--timeout", "60", *options]
    files = sorted(str(path.relative_to(source)) for path in tests)
    return subprocess.run([*command, *files], cwd=source, env=environment, check=False).returncode


def pip(*arguments: str) -> None:
    """Run pip, quietly; what it says when it fails is shown."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        raise SystemExit(f"== pip could not: {' '.join(arguments)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
