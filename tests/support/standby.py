"""A fresh process that has done its slow imports, and waits to be told which program to be.

Tests that start a hundred servers would spend their time on imports. Nothing of the library is imported here: a
program starts with it as with any other process of its own.
"""

import array
import importlib
import json
import os
import runpy
import socket
import sys

SLOW_IMPORTS = ["apsw", "fastapi", "uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl", "uvloop"]


def main() -> None:
    """Wait for an order on the socket given as the first argument; its end without one ends this process."""
    for module in SLOW_IMPORTS:
        importlib.import_module(module)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        message, ancillary, _, _ = control.recvmsg(65536, socket.CMSG_SPACE(8 * array.array("i").itemsize))
    if not message:
        return
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    order = json.loads(message)
    os.dup2(descriptors[0], 1)
    os.dup2(descriptors[0], 2)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    os.environ.update(order["environment"])
    if len(descriptors) > 1:
        os.environ["APP_LISTENS_ON"] = str(descriptors[1])
    assert "afterward" not in sys.modules
    sys.argv = [order["module"], *order["arguments"]]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
