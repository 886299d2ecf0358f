"""docs/cli.md tells of every command and option, and of no other."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from afterward.cli.commands import app

COMMANDS: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("command", ["worker", "jobs", "job", "check"])
def test_the_page_names_all_options(command: str) -> None:
    """Of each command, in its section."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    [text] = [part for part in section if part.startswith(f"afterward {command}\n")]
    shown = [option for option in COMMANDS[command].params if not getattr(option, "hidden", False)]
    options = {str(name) for option in shown for name in option.opts if name.startswith("--")}
    assert set(re.findall(r"(?<![\w-])--[a-z]+", text)) == options


def test_the_page_names_all_commands() -> None:
    """In their order."""
    named = re.findall(r"^## afterward (\w+)$", PAGE, flags=re.MULTILINE)
    assert named == list(COMMANDS)
