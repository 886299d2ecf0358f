"""The tutorial is done as a reader does it: its files are written, its commands typed, and its outputs appear."""

import re
from pathlib import Path

import pytest

from servers.ports import free_port
from tests.support.pages import DOCS, Block, read, write_file
from tests.support.terminal import ID, Terminal, shows, terminal
from tests.support.waiting import wait_until


@pytest.mark.timeout(120)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    """On a free port. A question is asked again until the answer is the one shown, as the page tells the reader."""
    folder = tmp_path / "folder"
    folder.mkdir()
    reader = Reader(folder, free_port())
    with terminal(folder) as reader.terminal:
        for block in read(DOCS / "tutorial.md").blocks:
            reader.follow(block)
        assert reader.outputs_seen == 11
    log = (folder / "server.log").read_text().splitlines()
    printed = [line for line in log if line.startswith("report may, attempt")]
    assert printed[0] == "report may, attempt 1: page 1"
    assert printed[-5:] == [f"report may, attempt 2: page {page}" for page in range(1, 6)]
    assert 6 <= len(printed) < 10, "it was killed in the middle"


class Reader:
    """Who follows the page."""

    terminal: Terminal

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._typed = ""
        self._answer = ""
        self._id = ""
        self.outputs_seen = 0

    def follow(self, block: Block) -> None:
        match block.language:
            case "python":
                write_file(block, self._folder)
            case "sh" if "pip install" not in block.code:
                self._type(re.sub(r"(?<=[: ])8000\b", str(self._port), block.code))
            case "text":
                self._look_for(block.code)
            case _:
                pass

    def _type(self, commands: str) -> None:
        self._typed = ID.sub(self._id, commands)
        self._answer = self.terminal.type(self._typed)
        if ids := ID.findall(self._answer):
            self._id = ids[-1]

    def _look_for(self, output: str) -> None:
        """What was asked may be asked again; what orders something may not."""

        def appears() -> bool:
            if shows(self._answer, output):
                return True
            assert "-X POST" not in self._typed, f"{self._typed} answers {self._answer}"
            self._answer = self.terminal.type(self._typed)
            return False

        wait_until(appears, f"{output!r} appears", seconds=30)
        self.outputs_seen += 1


def test_an_output_is_told_from_another() -> None:
    """`…` stands for anything, and an id for any id."""
    known = "0198c0de-0000-7000-8000-000000000001"
    assert shows(f'noise\n{{"job":"{known[:-1]}7"}}\n', f'{{"job":"{known}"}}')
    assert shows("a succeeded b", "…succeeded…")
    assert not shows("a failed b", "…succeeded…")
    assert not shows('{"job":"7"}', f'{{"job":"{known}"}}')
    assert re.fullmatch(ID, known)
