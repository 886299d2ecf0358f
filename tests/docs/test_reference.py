"""The reference has every public name, and the tables of options every option."""

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import afterward
from afterward import Afterward, Job, Task, errors, testing
from tests.support.pages import DOCS, REPOSITORY

REFERENCE = (DOCS / "reference.md").read_text()
OPTIONS = (DOCS / "options.md").read_text()


def test_every_public_name_is_in_the_reference() -> None:
    """And those of `afterward.testing`, and an attempt; and every error, but for the one that no user meets."""
    shown = set(re.findall(r"^::: afterward\.(?:\w+\.)?(\w+)$", REFERENCE, flags=re.MULTILINE))
    raised = {
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.AfterwardError)
    }
    assert shown == {*afterward.__all__, *testing.__all__, "Attempt", *raised} - {"ArgumentsDoNotFit"}


@pytest.mark.parametrize("kind", [Afterward, Task, testing.Bench, testing.Clock])
def test_the_reference_names_members_that_exist(kind: type[Any]) -> None:
    """A member that is not there would silently not be shown."""
    assert all(getattr(kind, name).__doc__ for name in _members(kind))


@pytest.mark.parametrize("kind", [testing.Bench, testing.Clock])
def test_the_reference_has_every_member_for_tests(kind: type[Any]) -> None:
    """Whatever is there without an underscore."""
    assert _members(kind) == {name for name in dir(kind) if not name.startswith("_")}


def _members(kind: type[Any]) -> set[str]:
    heading = rf"^::: afterward\.(?:testing\.)?{kind.__name__}\n"
    [listed] = re.findall(heading + r".*\n +members: \[(.*)\]$", REFERENCE, flags=re.MULTILINE)
    return set(listed.split(", "))


def test_the_table_of_a_jobs_attributes_is_whole() -> None:
    """In the reference."""
    assert _first_column(REFERENCE) == {field.name for field in dataclasses.fields(Job)}


@pytest.mark.parametrize(
    ("heading", "takes_them", "unsaid"),
    [
        ("Of a task", Afterward.task, {"function"}),
        ("Of one call", Task[..., Any].options, set[str]()),
        # `store` is for stores that have no URL: those of tests.
        ("Of all tasks", Afterward.__init__, {"store"}),
        ("Of all tasks", Afterward.install, {"app"}),
    ],
)
def test_the_tables_of_options_are_whole(heading: str, takes_them: Callable[..., Any], unsaid: set[str]) -> None:
    """In docs/options.md, in the section of that name, and nothing else is there."""
    options = set(inspect.signature(takes_them).parameters) - {"self", *unsaid}
    [section] = [text for text in OPTIONS.split("\n## ") if text.startswith(f"{heading}\n")]
    tables = [_first_column(table) for table in re.findall(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)]
    assert options in tables


def test_the_table_of_events_is_whole() -> None:
    """In docs/logging.md: whatever the library and the command line emit."""
    sources = (REPOSITORY / "src").rglob("*.py")
    told = [event for path in sources for event in re.findall(r"emit\(\s*[\w.]+,\s*([^,)]*)[,)]", path.read_text())]
    emitted = {name for event in told for name in re.findall(r'"([a-z_.]+)"', event)}
    assert _first_column((DOCS / "logging.md").read_text()) == emitted


def _first_column(text: str) -> set[str]:
    cells = re.findall(r"^\| ([^|]*) \|", text, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}
