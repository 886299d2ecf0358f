"""Asking before many jobs are changed."""

from __future__ import annotations

import sys

import typer

from afterward.cli.wishes import ctrl_c_breaks_in
from afterward.errors import ConfigurationError


def consents(question: str, *, yes: bool) -> bool:
    """Does the person at the terminal agree? Raises `ConfigurationError` when there is none to ask."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} There is no terminal to answer at; add --yes to agree beforehand")
    with ctrl_c_breaks_in():
        return typer.confirm(question, err=True)
