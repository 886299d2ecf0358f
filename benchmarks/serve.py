"""uvicorn as it is run in production, on a free port that is printed: `python -m benchmarks.serve MODULE:APP`."""

import socket
import sys

import uvicorn


def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(sys.argv[1], loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
