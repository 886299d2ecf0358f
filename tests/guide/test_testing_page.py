"""docs/testing.md: the page is one module, and each test on it passes."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.processes import REPOSITORY

PAGE = (REPOSITORY / "docs" / "testing.md").read_text()
CODE = "\n\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
CONFTEST = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def test_each_test_on_the_page_passes(tmp_path: Path) -> None:
    """Asynchronous ones by anyio's plugin; none of them leaves a store."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    marked = re.sub(r"^async def test_", "@pytest.mark.anyio\n\\g<0>", CODE, flags=re.MULTILINE)
    (tmp_path / "test_page.py").write_text("import pytest\n" + marked)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--rootdir", str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    tests = len(re.findall(r"^(?:async )?def test_", CODE, flags=re.MULTILINE))
    assert tests > 5
    assert ran.stdout.splitlines()[-1].startswith(f"{tests} passed"), ran.stdout
    assert not list(tmp_path.glob("afterward.db*"))
