"""The command line: `commands.py` says what can be typed."""

from __future__ import annotations

import importlib
import io
import sys


def main() -> None:
    """Run the command line, or say what to install for it."""
    if not all(_is_installed(module) for module in ("typer", "rich")):
        print('afterward: the command line needs typer and rich: pip install "afterward[cli]"', file=sys.stderr)
        sys.exit(1)
    from afterward.cli.commands import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="afterward")


def _is_installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return False
    return True
