"""What the pages of the dashboard are made from is there where the package is installed."""

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.support.pages import REPOSITORY

FOLDER = REPOSITORY / "src" / "afterward" / "web" / "dashboard"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files in the wheel."""
    [wheel] = WheelBuilder(str(REPOSITORY)).build(
        directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]
    )
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("folder", ["templates", "static"])
def test_templates_and_files_are_in_the_wheel(names: set[str], folder: str) -> None:
    files = [path for path in (FOLDER / folder).iterdir() if path.is_file()]
    assert files
    for path in files:
        assert str(Path("afterward/web/dashboard") / folder / path.name) in names
