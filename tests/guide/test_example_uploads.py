"""The uploads of `examples/notifications`: a file that was answered 202 is worked on to its end, `kill -9` or not.

Nothing here is faked: uvicorn serves the app in a process of its own.
"""

import hashlib
import struct
import subprocess
import sys
import zlib
from typing import Any

import pytest

from tests.support.example import World, wait_until

TEXT = b"".join(b"line %d\n" % number for number in range(50_000))


def png(width: int, height: int) -> bytes:
    """A black picture (PNG specification, 5.3)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def summary_of(name: str, data: bytes, picture: Any = None) -> dict[str, Any]:
    """What the app should find out about a file."""
    return {
        "name": name,
        "bytes": len(data),
        "lines": data.count(b"\n"),
        "sha256": hashlib.sha256(data).hexdigest(),
        "picture": picture,
    }


def succeeded(world: World, job: str) -> Any:
    """What is said of an upload once it has succeeded."""

    def found() -> Any:
        answer = world.look(job).json()
        assert answer["status"] in {"queued", "running", "succeeded"}, answer
        return answer if answer["status"] == "succeeded" else None

    return wait_until(found, "the file is worked on")


GIF = b"GIF89a" + struct.pack("<HH", 3, 500) + b"\x80\0\0" + bytes(6) + b";"
FILES = [
    ("notes.txt", TEXT, "text/plain", None),
    ("empty", b"", "application/octet-stream", None),
    ("black.png", png(640, 480), "image/png", {"format": "png", "width": 640, "height": 480}),
    ("small.gif", GIF, "image/gif", {"format": "gif", "width": 3, "height": 500}),
    ("../../etc/passwd", b"root", "text/plain", None),
    ("no picture.png", b"\x89PNG\r\n\x1a\n", "image/png", None),
]


def test_an_upload_is_answered_202_and_worked_on_afterwards(world: World) -> None:
    """Text, nothing, pictures, and what only calls itself one; the name is what the client called it."""
    world.environment["UPLOADS_SECONDS"] = "0.1"
    world.start_app()
    for name, data, type_, picture in FILES:
        response = world.upload(name, data, type_)
        assert response.status_code == 202
        job = response.json()["job"]
        assert response.json() == {"message": "File accepted", "job": job}
        answer = succeeded(world, job)
        summary = summary_of(name, data, picture)
        assert answer == {"job": job, "status": "succeeded", "attempt": 1, "summary": summary}


def test_a_file_that_was_being_worked_on_at_the_kill_is_worked_on_again_to_its_end(world: World) -> None:
    """It is the same file, from its start, in a process that has never seen its request."""
    world.environment["UPLOADS_SECONDS"] = "60"
    app = world.start_app()
    job = world.upload("notes.txt", TEXT).json()["job"]
    wait_until(lambda: world.look(job).json()["status"] == "running", "it is begun")
    assert world.look(job).json()["summary"] is None
    app.kill()

    world.environment["UPLOADS_SECONDS"] = "0.1"
    world.start_app()
    answer = succeeded(world, job)
    assert answer["attempt"] == 2
    assert answer["summary"] == summary_of("notes.txt", TEXT)


def test_each_of_many_uploads_is_worked_on_though_the_app_is_killed_again_and_again(world: World) -> None:
    """No two are mixed up, and none is lost."""
    world.environment["UPLOADS_SECONDS"] = "1"
    files = {f"{number}.txt": TEXT[: 10_000 * number] for number in range(1, 21)}
    jobs: dict[str, str] = {}
    names = iter(files)
    for _ in range(4):
        app = world.start_app()
        for name in [next(names) for _ in range(5)]:
            jobs[name] = world.upload(name, files[name]).json()["job"]
        app.kill()
    world.environment["UPLOADS_SECONDS"] = "0"
    world.start_app()
    for name, data in files.items():
        assert succeeded(world, jobs[name])["summary"] == summary_of(name, data)


def test_only_uploads_are_shown(world: World) -> None:
    """404 for what is not there, and for the jobs of other tasks."""
    world.start_mailbox()
    world.start_app()
    mail = world.post("johndoe@example.com").json()["job"]
    assert world.look(mail).status_code == 404
    assert world.look("unknown").status_code == 404


def test_a_file_of_more_than_64_mebibytes_is_refused(world: World) -> None:
    """413, and the one of just that size is accepted."""
    world.environment["UPLOADS_SECONDS"] = "0"
    world.start_app()
    largest = bytes(64 * 1024 * 1024)
    response = world.upload("large", largest + b"\0")
    assert (response.status_code, response.json()) == (413, {"detail": "The file is too large."})
    job = world.upload("largest", largest).json()["job"]
    assert succeeded(world, job)["summary"] == summary_of("largest", largest)


@pytest.mark.parametrize("seconds", ["soon", "-1", "nan", "3601"])
def test_a_wrong_setting_is_named_before_the_app_serves(world: World, seconds: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import examples.notifications.app"],
        env=world.environment | {"UPLOADS_SECONDS": seconds},
        cwd=world.folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 1
    message = f"UPLOADS_SECONDS is a number from 0 to 3600; not {seconds!r}"
    assert run.stderr.splitlines()[-1] == f"examples.notifications.mail.SettingsError: {message}"
