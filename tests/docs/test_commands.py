"""The commands that the documentation shows exist, and so do their options."""

import configparser
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import celery.bin.celery
import celery.bin.worker
import click
import gunicorn.config
import pytest
import typer.main
import uvicorn
import yaml

from afterward.cli.commands import app
from tests.support.pages import REPOSITORY, Page, all_pages, read

EVERYWHERE = {".", "cat", "cd", "curl", "export", "fastapi", "jq", "kill", "wait"}
"""What every system has, or the reader's."""

PAGES = [read(path) for path in all_pages()]


@dataclass(frozen=True)
class Command:
    """One simple command on a page."""

    page: Page
    line: int
    words: Sequence[str]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}: {' '.join(self.words)}"


def _commands(page: Page) -> Iterator[Command]:
    for block in page.of("sh"):
        for number, line in enumerate(block.code.splitlines()):
            for words in _simple(line):
                yield Command(page, block.line + number, words)
    for block in page.of("ini"):
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign] # pyright: ignore[reportAttributeAccessIssue] - as its manual says
        unit.read_string(block.code)
        if unit.has_option("Service", "ExecStart"):
            path, *rest = shlex.split(unit["Service"]["ExecStart"])
            yield Command(page, block.line, [path.rpartition("/")[2], *rest])
    for block in page.of("yaml"):
        for service in yaml.safe_load(block.code).get("services", {}).values():
            if "command" in service:
                yield Command(page, block.line, shlex.split(service["command"]))


def _simple(line: str) -> Iterator[list[str]]:
    """The simple commands of a line, without what says where output goes."""
    words: list[str] = []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for word in [*lexer, ";"]:
        if word in {"|", "&", ";", "&&"}:
            if words:
                yield words
            words = []
        else:
            words.append(word)


COMMANDS = [command for page in PAGES for command in _commands(page)]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_the_command_exists_with_its_options(command: Command) -> None:
    """Of the tools that come with the project or that it is served by, every option; of others, that we know them."""
    program, *rest = command.words
    match program:
        case "afterward":
            [name, *arguments] = rest
            commands: dict[str, click.Command] = vars(typer.main.get_command(app))["commands"]
            assert name in commands, f"there is no command afterward {name}"
            _check_options(_options(commands[name]), arguments)
        case "uvicorn":
            _check_options(_options(vars(uvicorn)["main"]), rest)
        case "gunicorn":
            known = {option for setting in _gunicorn_settings() for option in setting.cli or ()}
            _check_options(known, rest)
        case "celery":
            known = _options(celery.bin.celery.celery) | _options(celery.bin.worker.worker)
            _check_options(known, rest)
        case "pip":
            _check_packages(rest)
        case "python":
            assert _is_shown(command.page, rest), f"{rest} is neither a file of the page nor a module of the project"
        case _ if program.startswith("scripts/"):
            assert (REPOSITORY / program).is_file()
        case _:
            is_variable = re.match(r"\w+=", program) is not None
            assert is_variable or program in EVERYWHERE, f"{program} is not known here: {command}"


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def _gunicorn_settings() -> list[Any]:
    return list(gunicorn.config.KNOWN_SETTINGS)


def _check_options(known: set[str], arguments: Sequence[str]) -> None:
    for argument in arguments:
        if argument.startswith("-"):
            assert argument.partition("=")[0] in known, f"there is no option {argument}"


def _check_packages(arguments: Sequence[str]) -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert arguments[0] == "install"
    for package in arguments[1:]:
        name, _, wanted = package.rstrip("]").partition("[")
        if name == "afterward" and wanted:
            assert set(wanted.split(",")) <= set(extras), f"afterward has no extra {wanted}"


def _is_shown(page: Page, arguments: Sequence[str]) -> bool:
    if arguments[0] != "-m":
        return arguments[0] in {block.title for block in page.blocks}
    module = REPOSITORY / arguments[1].replace(".", "/")
    return module.is_dir() or module.with_suffix(".py").is_file() or arguments[1] in {"afterward", "venv"}


@pytest.mark.parametrize("page", [page for page in PAGES if page.of("sh")], ids=lambda page: page.name)
def test_shell_code_is_well_formed(page: Page) -> None:
    """As bash reads it."""
    for block in page.of("sh"):
        read_by_bash = subprocess.run(["bash", "-n"], check=False, input=block.code, text=True, capture_output=True)
        assert read_by_bash.returncode == 0, f"{page.name}:{block.line}: {read_by_bash.stderr}"


def test_what_does_not_exist_is_found() -> None:
    """An option, a command, a program, a file."""
    page = Page("docs/some.md", [])
    for line in [
        "afterward worker main:app --proceses 4",
        "afterward wrok main:app",
        "uvicorn main:app --prot 8000",
        "gunicorn main:app --wrokers 2",
        "python backup.py",
        "scripts/dome",
        "pip install 'afterward[clu]'",
        "crul http://127.0.0.1",
    ]:
        [words] = _simple(line)
        with pytest.raises(AssertionError):
            test_the_command_exists_with_its_options(Command(page, 1, words))
