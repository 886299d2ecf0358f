"""docs/upgrading.md is true: its diffs apply to the shop as it was, and both shops run."""

import asyncio
import importlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from anyio.from_thread import start_blocking_portal
from fastapi.testclient import TestClient

from afterward.cli.check import check
from tests.cli.conftest import World
from tests.support.diffs import apply
from tests.support.disk import jobs_on_disk
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "upgrading.md").read_text()
BEFORE = ROOT / "docs" / "upgrading" / "before"


class Outbox:
    """A mail server, and what it has got."""

    def __init__(self) -> None:
        self.mails: list[Message] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        """Take it."""
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    """Where the shop's mail goes."""
    outbox = Outbox()

    async def serve() -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: SMTP(outbox, hostname="localhost", loop=loop), "127.0.0.1", 0)

    with start_blocking_portal() as portal:
        server = portal.call(serve)
        monkeypatch.setenv("SMTP_PORT", str(server.sockets[0].getsockname()[1]))
        yield outbox
        portal.call(server.close)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The shop as it was, in a folder of its own, and the settings of both."""
    shutil.copytree(BEFORE, tmp_path / "shop", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("SHOP_DATABASE", str(tmp_path / "shop.db"))
    monkeypatch.setenv("SHOP_LOG", str(tmp_path / "visits.txt"))
    monkeypatch.setenv("AFTERWARD_URL", f"sqlite:///{tmp_path}/jobs.db")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "shop"), *sys.path])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path / "shop"
    for name in [name for name in sys.modules if name == "shop" or name.startswith("shop.")]:
        del sys.modules[name]


def upgrade(shop: Path) -> list[str]:
    """Apply all diffs of the page; the files that they change."""
    diffs = re.findall(r"^```diff\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [apply(diff, shop).name for diff in diffs]


def use(shop: Path, outbox: Outbox, visits_noted: int) -> dict[str, Any]:
    """Order and export; all that can be seen of it, once it has come to rest."""
    main, visits = importlib.import_module("shop.main"), importlib.import_module("shop.visits")
    log, folder = shop.parent / "visits.txt", shop.parent
    log.touch()
    with TestClient(main.app) as client:
        placed = client.post("/orders", json={"email": "ada@example.com", "item": "a book"})
        wait_until(lambda: len(outbox.mails) == 2, "both mails have been sent")
        exported = client.get("/orders/export")
        wait_until(lambda: len(log.read_text().splitlines()) == visits_noted, "visits have been noted")
        wait_until(lambda: not list(folder.glob("tmp*")), "the exported file is removed")
    return {
        "answers": [(answer.status_code, answer.text) for answer in (placed, exported)],
        "mails": sorted((mail["To"], mail["Subject"], str(mail.get_payload())) for mail in outbox.mails),
        "visits": sorted(log.read_text().splitlines()),
        "counted": dict(visits.visits),
        "states": states(),
    }


def states() -> list[Any]:
    """Of the orders in the shop's database."""
    database = importlib.import_module("shop.database")
    db = database.connect()
    try:
        rows: list[Any] = db.execute("SELECT id, state FROM orders").fetchall()
        return rows
    finally:
        db.close()


EXPECTED = {
    "answers": [(202, '{"order":1}'), (200, "1,a book\r\n")],
    "mails": [
        ("ada@example.com", "Your order", "We are packing: a book.\r\n"),
        ("stock@example.com", "Sold", "a book\r\n"),
    ],
    "visits": ["POST /orders"],
    "counted": {"/orders": 1},
    "states": [(1, "confirmed")],
}


def test_the_shop_works_before(shop: Path, outbox: Outbox) -> None:
    """With FastAPI's own class, which drops what was added where a response has a `background`: nothing is stored."""
    assert use(shop, outbox, visits_noted=1) == EXPECTED
    assert not (shop.parent / "jobs.db").exists()


def test_the_shop_works_after(shop: Path, outbox: Outbox) -> None:
    """What it does afterwards is stored, its mails have an identity, and all visits are noted."""
    assert upgrade(shop) == ["background.py", "main.py", "mail.py", "visits.py", "orders.py", "test_shop.py"]
    noted = {"visits": ["GET /orders/export", "POST /orders"]}
    assert use(shop, outbox, visits_noted=2) == EXPECTED | noted
    jobs = jobs_on_disk(shop.parent / "jobs.db")
    assert sorted(job.task for job in jobs) == [
        "shop.mail:send_mail",
        "shop.orders:confirm",
        "shop.orders:remove_folder",
        "shop.visits:write_visit",
        "shop.visits:write_visit",
    ]
    by_id = {job.id for job in jobs}
    assert {str(mail["Message-ID"]).strip("<>").removesuffix("@example.com") for mail in outbox.mails} <= by_id


def test_the_tests_of_the_shop_pass_before_and_after(shop: Path, world: World) -> None:
    """And what they say of the shop as it is after would not pass before: they are no formality."""
    world.folder = shop
    pytest_here = ("-m", "pytest", "-p", "no:cacheprovider", "-q", "--rootdir", str(shop), "test_shop.py")
    assert "1 passed" in world.run_python(*pytest_here).stdout
    old_test = (shop / "test_shop.py").read_text()
    upgrade(shop)
    assert "1 passed" in world.run_python(*pytest_here).stdout
    (shop / "test_shop.py").write_text(old_test)
    assert "1 failed" in world.run_python(*pytest_here).stdout


def test_the_page_shows_what_the_check_says(shop: Path, world: World) -> None:
    """To the letter, before; and nothing is left after, not even what cannot be told."""
    world.folder = shop
    shown = re.findall(r"^\$ afterward check\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    before = world.run("check")
    assert before.returncode == 1
    upgrade(shop)
    after = world.run("check", "--verbose")
    assert (after.returncode, after.stdout) == (0, "")
    assert [before.stdout + before.stderr, after.stderr] == shown


def test_each_step_alone_leaves_fewer_findings(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One can go through it function by function: only the set-up, which has nothing in it yet, changes none."""
    monkeypatch.chdir(shop)
    diffs = re.findall(r"^```diff\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    counts = [len(check([Path()]).findings)]
    for diff in diffs:
        apply(diff, shop)
        counts.append(len(check([Path()]).findings))
    assert counts[0] == counts[1] == counts[2] == 7
    assert counts[-1] == 0
    assert counts == sorted(counts, reverse=True)
