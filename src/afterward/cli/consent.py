"""Asking before many jobs are changed."""

from __future__ import annotations

import sys

import typer

from afterward.cli.wishes import ctrl_c_breaks_in, until_typed
from afterward.errors import ConfigurationError

_ANSWERS = {"y": True, "yes": True, "n": False, "no": False, "": False}


def consents(question: str, *, yes: bool) -> bool:
    """Does the person at the terminal agree? Raises `ConfigurationError` when there is none to ask."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} There is no terminal to answer at; add --yes to agree beforehand")
    while (said := _said(f"{question} [y/N]: ")) not in _ANSWERS:
        typer.echo("Error: answer y or n", err=True)
    return _ANSWERS[said]


def _said(prompt: str) -> str:
    typer.echo(prompt, nl=False, err=True)
    try:
        with ctrl_c_breaks_in():
            until_typed()
            line = sys.stdin.readline()
    except KeyboardInterrupt:
        raise typer.Abort from None
    if not line:
        raise typer.Abort
    return line.strip().lower()
