"""A process that has done its slow imports, and makes of copies of itself whatever programs it is told to.

Tests that start hundreds of servers would spend most of their time on imports. Nothing of the library is imported here:
a program starts with it as with any other process of its own.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import Any

SLOW_IMPORTS = ["apsw", "fastapi", "uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl", "uvloop"]


def main() -> None:
    """Take orders from the socket given as the first argument, until it is closed."""
    for module in SLOW_IMPORTS:
        importlib.import_module(module)
    assert "afterward" not in sys.modules
    gc.freeze()  # a copy's collector has no business with all this
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for the programs
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        ordered = _wait_for_orders(orders)
    if ordered is not None:
        _be(*ordered)


def _wait_for_orders(orders: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """An order, with its descriptors, in the process that carries it out; None in this one, when there are no more."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, 16, 5)
        if not message:
            return None
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            tells, written, *others = descriptors
            program = os.fork()
            if program:
                _tell_of(program, tells, [orders.fileno(), written, *others])
            os.close(tells)
            with open(written) as order:  # noqa: PTH123 - it has no path
                order.seek(0)
                return json.load(order), others
        for descriptor in descriptors:
            os.close(descriptor)


def _tell_of(program: int, tells: int, others: list[int]) -> None:
    """Tell a program's id and, when it has ended, its return code."""
    for descriptor in others:
        os.close(descriptor)
    os.write(tells, b"%d\n" % program)
    _, status = os.waitpid(program, 0)
    os.write(tells, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _be(order: dict[str, Any], descriptors: list[int]) -> None:
    os.setsid()
    output, errors, *listening = descriptors
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    os.environ.clear()
    os.environ.update(order["environment"])
    if listening:
        os.environ["APP_LISTENS_ON"] = str(listening[0])
    os.chdir(order["folder"])
    program: str = order["program"]
    sys.argv = [program, *order["arguments"]]
    if Path(program).is_absolute():
        sys.path[0] = str(Path(program).parent)
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
