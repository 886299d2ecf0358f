"""Whether a process lives that somebody else has started."""


def is_running(pid: int) -> bool:
    """Not one that has ended, and whose parent has not asked how yet."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - not a file on a disk
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
