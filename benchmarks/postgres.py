"""The PostgreSQL server of one measurement, as careful as in production."""

from pathlib import Path

from servers.postgres import Server, Setting


def postgres(folder: Path, **settings: Setting) -> Server:
    """A server that is not started, with its data in this folder: what it says to have stored is on the disk."""
    careful: dict[str, Setting] = {"fsync": True, "synchronous_commit": True, "shared_buffers": "256MB"}
    return Server(folder, **careful, **settings)
