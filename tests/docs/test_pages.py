"""The documentation is run: every Python block of the README and of docs/ does what its page says."""

import configparser
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.pages import DOCS, REPOSITORY, BrokenPage, Page, all_pages, parse, read, run

PAGES = {str(path.relative_to(REPOSITORY)): path for path in all_pages()}
SERVERS = {"DATABASE_URL": "postgres_url", "AFTERWARD_CELERY_URL": "valkey_url", "BROKER_URL": "valkey_url"}
"""Where a page's code finds them, and what gives the test its own."""

LANGUAGES = {"", "console", "diff", "dockerfile", "ini", "javascript", "json", "python", "sh", "text", "toml", "yaml"}


@pytest.mark.parametrize("name", [name for name, path in PAGES.items() if read(path).of("python")])
def test_the_code_of_the_page_runs(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In a process of its own, with warnings as errors, in an empty folder; with the servers that it asks for."""
    page = read(PAGES[name])
    code = "".join(block.code for block in page.blocks)
    asked = {variable: fixture for variable, fixture in SERVERS.items() if variable in code}
    run(page, tmp_path, **{variable: request.getfixturevalue(fixture) for variable, fixture in asked.items()})


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_in_a_language_that_is_checked(name: str) -> None:
    """And data is well-formed."""
    for block in read(PAGES[name]).blocks:
        assert block.language in LANGUAGES, f"{name}:{block.line}: {block.language!r}"
        try:
            _read_data(block.language, block.code)
        except Exception as error:
            pytest.fail(f"{name}:{block.line}: {error}")


def _read_data(language: str, text: str) -> None:
    match language:
        case "ini":
            configparser.ConfigParser(interpolation=None, strict=False).read_string(text)
        case "json":
            json.loads(text)
        case "toml":
            tomllib.loads(text)
        case "yaml":
            yaml.safe_load(text)
        case _:
            pass


def test_every_page_is_in_the_navigation() -> None:
    """The site's builder passes over a page that is not, and over an entry without a page."""
    navigation = tomllib.loads((REPOSITORY / "zensical.toml").read_text())["project"]["nav"]
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert sorted(_targets(navigation)) == sorted(pages), "zensical.toml's nav and the files in docs/ differ"


def _targets(entry: "str | list[Any] | dict[str, Any]") -> list[str]:
    if isinstance(entry, str):
        return [entry]
    inside = list(entry.values()) if isinstance(entry, dict) else entry
    return [target for one in inside for target in _targets(one)]


# The runner itself

FENCE = "```"


def page(*blocks: tuple[str, str], name: str = "docs/some.md") -> Page:
    """A page with these blocks: info string and code."""
    return parse(name, "".join(f"Some text.\n\n{FENCE}{info}\n{code}\n{FENCE}\n" for info, code in blocks))


@pytest.mark.parametrize(
    "blocks",
    [
        [("python", "assert False")],
        [("python", "import warnings"), ("python", "warnings.warn('one', stacklevel=1)")],
        [("python", "print(1)  # -> 2")],
        [("python", "print(1)")],
        [("python", "x = 1\n# -> 1")],
        [('python title="main.py"', "assert False")],
        [('python title="main.py"', "x = 1"), ("python", "from main import y")],
        [('python title="main.py"', "x = 1"), ('python title="main.py"', "assert x == 2")],
        [('python title="test_main.py"', "def test_it() -> None:\n    assert False")],
        [('python title="test_main.py"', "x = 1")],
        [("python", "def test_it() -> None:\n    assert True")],
        [('python title="test_main.py"', "async def test_it() -> None:\n    assert True")],
    ],
)
def test_what_is_wrong_on_a_page_is_found(blocks: list[tuple[str, str]], tmp_path: Path) -> None:
    """An error, a warning, other output than it says, a file that lacks what is imported, a test that is not run."""
    with pytest.raises(BrokenPage):
        run(page(*blocks), tmp_path)


def test_what_is_right_on_a_page_runs(tmp_path: Path) -> None:
    """Files, blocks that build on one another, a test, and output."""
    blocks = [
        ("python", "from main import x"),
        ('python title="main.py"', "x = 1"),
        ("python", "y = x + 1\nprint(y)\n# -> 2"),
        ('python title="test_main.py"', "from main import x\n\ndef test_it() -> None:\n    assert x == 1"),
        ('{ .python not-run="it would not end" }', "while True: pass"),
    ]
    run(page(*blocks), tmp_path)


def test_an_error_is_told_with_the_line_of_the_page(tmp_path: Path) -> None:
    """So that whoever wrote it finds it."""
    with pytest.raises(BrokenPage, match=r'some_page\.py", line 10'):
        run(page(("python", "x = 1"), ("python", "y = 1\nassert y == 2")), tmp_path)


def test_a_proof_is_run_though_it_is_not_shown(tmp_path: Path) -> None:
    """It belongs to the blocks before it."""
    text = f"{FENCE}python\nx = 1\n{FENCE}\n\n<!-- proof\nassert True\n\nassert x == 2\n-->\n"
    with pytest.raises(BrokenPage, match="line 8"):
        run(parse("docs/some.md", text), tmp_path)


def test_a_block_that_the_site_cannot_show_is_refused() -> None:
    """An option that it does not know turns a block into text."""
    with pytest.raises(BrokenPage, match=r"some\.md:3"):
        page(('python no-run="it rains"', "x = 1"))
