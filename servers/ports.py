"""Ports that nobody listens on."""

import random
import socket

_chance = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 on which a server can listen, stop, and listen again.

    None of those that systems give to whoever connects or asks for any port: between a server's stop and its next
    start one of these can be taken, even by the client that tries to reach the server. Another process may choose the
    same, so who starts a server there must be ready to choose again.
    """
    while True:
        port = _chance.randrange(15_000, 32_000)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
