"""Uploads: what there is to say of a file, found out while it is read block by block."""

import asyncio
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import UploadFile
from pydantic import BaseModel

from .mail import SettingsError

_BLOCK_BYTES = 64 * 1024


class Picture(BaseModel):
    """What the head of a picture says."""

    format: str
    width: int
    height: int


class Summary(BaseModel):
    """What was found out about a file. Its name is the client's word for it, and nothing else."""

    name: str | None
    bytes: int
    lines: int
    sha256: str
    picture: Picture | None = None


@dataclass(frozen=True)
class UploadSettings:
    """`seconds`: how long a file is worked on at least, so that there is time to pull the plug."""

    seconds: float


def upload_settings_from(environment: Mapping[str, str]) -> UploadSettings:
    """Read the `UPLOADS_*` variables; an empty one counts as not set. Raises SettingsError."""
    text = environment.get("UPLOADS_SECONDS") or "5"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise SettingsError(f"UPLOADS_SECONDS is a number from 0 to 3600; not {text!r}")
    return UploadSettings(seconds)


async def summarized(file: UploadFile, settings: UploadSettings) -> Summary:
    """Read a file from its start to its end, slowly."""
    size = file.size or 0
    head, lines, digest = b"", 0, hashlib.sha256()
    while block := await file.read(_BLOCK_BYTES):
        head = head or block
        lines += block.count(b"\n")
        digest.update(block)
        await asyncio.sleep(settings.seconds * len(block) / size)
    return Summary(name=file.filename, bytes=size, lines=lines, sha256=digest.hexdigest(), picture=picture_in(head))


def picture_in(head: bytes) -> Picture | None:
    """The picture that begins so: a PNG (its specification, 11.2.1) or a GIF (its specification, 18); else None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR" and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
        return Picture(format="png", width=width, height=height)
    if head.startswith((b"GIF87a", b"GIF89a")) and len(head) >= 10:
        width, height = struct.unpack("<HH", head[6:10])
        return Picture(format="gif", width=width, height=height)
    return None
