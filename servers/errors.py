"""What goes wrong with a server."""


class ServerError(RuntimeError):
    """A server cannot be started or stopped. What it said is in the message."""
