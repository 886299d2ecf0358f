"""The pages of the documentation: what code is in them, and running it.

- A Python block with a title, ```` ```python title="main.py" ````, is a file of that name. Another with the same title
  is added to its end.
- The other Python blocks of a page build on one another: together they are one module, in which each line has the
  number that it has on the page.
- So does a comment that begins with `<!-- proof`: it is run, and not shown.
- A file named `test_*.py` is run by pytest. A test that is not in such a file would not be run, and breaks the page.
- What is printed is what stands behind `# ->`, in order.
- A block that is not run says why: ```` ```{ .python not-run="the reason" } ````.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"

_INFO = re.compile(r'(?P<language>[\w+-]*)(?: title="(?P<title>[^"]+)")?')
_REASON = re.compile(r'\{ \.(?P<language>[\w+-]+)(?: title="(?P<title>[^"]+)")? not-run="(?P<reason>[^"]+)" \}')
_PROOF = "<!-- proof\n"
_TEST = re.compile(r"^(?:async )?def test_", re.MULTILINE)
_PRINTED = re.compile(r"# -> (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A piece of code on a page. `line` is the number of its first line there."""

    language: str
    code: str
    line: int
    title: str | None = None
    not_run: str | None = None


@dataclass(frozen=True)
class Page:
    """A page, with its code in the order of the text."""

    name: str
    blocks: Sequence[Block]

    def of(self, *languages: str) -> list[Block]:
        return [block for block in self.blocks if block.language in languages]

    @property
    def module(self) -> str:
        """The name of the module that its blocks without a title are."""
        return re.sub(r"\W", "_", self.name.lower().removesuffix(".md")) + "_page"


class BrokenPage(AssertionError):
    """The code of a page does not do what the page says."""


def all_pages() -> list[Path]:
    """The README and everything in docs/."""
    return [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]


def read(path: Path) -> Page:
    """A page and its code. Raises `BrokenPage` for a fence that would not be shown as one."""
    return parse(str(path.relative_to(REPOSITORY)), path.read_text())


def parse(name: str, text: str) -> Page:
    blocks: list[Block] = []
    for token in MarkdownIt().parse(text):
        line = 0 if token.map is None else token.map[0] + 2
        if token.type == "fence":
            info = _INFO.fullmatch(token.info.strip()) or _REASON.fullmatch(token.info.strip())
            if info is None:
                raise BrokenPage(f"{name}:{line - 1}: the site cannot show a block that begins with {token.info!r}")
            said = info.groupdict()
            blocks.append(Block(said["language"], token.content, line, said["title"], said.get("reason")))
        elif token.type == "html_block" and token.content.startswith(_PROOF):
            code, _, _ = token.content.removeprefix(_PROOF).partition("-->")
            blocks.append(Block("python", code, line))
    return Page(name, blocks)


def run(page: Page, folder: Path, **variables: str) -> None:
    """Run the Python of a page in a folder of its own, with these environment variables. Raises `BrokenPage`."""
    blocks = [block for block in page.of("python") if block.not_run is None]
    for block in blocks:
        write_file(block, folder)
    titles = list(dict.fromkeys(block.title for block in blocks if block.title is not None))
    tests = [title for title in titles if Path(title).name.startswith("test_")]
    modules = [title.removesuffix(".py").replace("/", ".") for title in titles if title not in tests]
    for block in blocks:
        if block.title not in tests and _TEST.search(block.code):
            raise BrokenPage(f"{page.name}:{block.line}: a test that is not in a file of tests is not run")
    rest = [block for block in blocks if block.title is None]
    if rest:
        _write(folder / f"{page.module}.py", _as_on_the_page(rest))
        modules.append(page.module)
    if modules:
        said = _python(page, folder, variables, "-c", _IMPORT, *modules)
        expected = [line.strip() for block in blocks for line in _PRINTED.findall(block.code)]
        if said.splitlines() != expected:
            raise BrokenPage(f"{page.name} prints {said.splitlines()}, and says that it prints {expected}")
    if tests:
        _python(page, folder, variables, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *tests)


_IMPORT = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"


def write_file(block: Block, folder: Path) -> None:
    """Write the file that a block with a title shows, or shows the end of."""
    if block.title is not None:
        path = folder / block.title
        _write(path, f"{path.read_text()}\n\n{block.code}" if path.exists() else block.code)


def environment(folder: Path) -> dict[str, str]:
    """That of a reader who has installed the project, and works in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AFTERWARD_", "PYTEST_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}", "PYTHONDONTWRITEBYTECODE": "1"}


def _python(page: Page, folder: Path, variables: Mapping[str, str], *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        check=False,
        cwd=folder,
        env={**environment(folder), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    if ended.returncode != 0:
        raise BrokenPage(f"the code of {page.name} fails:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def _write(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)


def _as_on_the_page(blocks: Sequence[Block]) -> str:
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.code.splitlines()
    return "\n".join(lines) + "\n"
