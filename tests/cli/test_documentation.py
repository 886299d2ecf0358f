"""docs/cli.md tells of every command and option, and of no other."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from afterward.cli.commands import app
from afterward.cli.exits import EPILOG

COMMANDS: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_names_all_options(command: str) -> None:
    """Of each command, in its section."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    [text] = [part for part in section if part.startswith(f"afterward {command}\n")]
    shown = [option for option in COMMANDS[command].params if not getattr(option, "hidden", False)]
    options = {str(name) for option in shown for name in option.opts if name.startswith("--")}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) == options


def test_the_page_and_the_help_name_all_exit_codes() -> None:
    """The same ones, and what they mean."""
    codes = {"0", "1", "2", "3", "130"}
    assert set(re.findall(r"^\| (\d+) \| ", PAGE, flags=re.MULTILINE)) == codes
    assert set(re.findall(r"\b(\d+), ", EPILOG)) == codes
    assert {command.epilog for command in COMMANDS.values()} == {EPILOG}


def test_the_page_names_all_commands() -> None:
    """In their order."""
    named = re.findall(r"^## afterward (\w+)$", PAGE, flags=re.MULTILINE)
    assert named == list(COMMANDS)
