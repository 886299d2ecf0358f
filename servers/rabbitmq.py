"""A real RabbitMQ."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from servers import account
from servers.daemon import Daemon
from servers.errors import ServerError
from servers.places import fast_place
from servers.ports import free_port

Setting = str | int | bool

# Debian's own command runs for root and one account, which is not ours; this is what it calls in the end.
_DEBIAN = "/usr/lib/rabbitmq/bin"
_NODE = "broker@localhost"
_PORTS_TRIED = 10
_ASKING_SECONDS = 60.0
# Two of them share a machine with tests: none waits for work by turning its wheels. And none is heard from outside.
_ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"


def find() -> Path | None:
    """The program, where it is installed: there is no wheel of it."""
    found = shutil.which("rabbitmq-server", path=os.pathsep.join([_DEBIAN, _programs(), "/usr/sbin"]))
    return Path(found) if found else None


class RabbitMQ:
    """A broker of one node, on TCP, at 127.0.0.1 and nowhere else, that lets `guest` do all.

    Its durable queues, with the persistent messages in them, and its virtual hosts outlive `stop` and `kill`.
    `settings` are those of `rabbitmq.conf`. It has its data, its cookie, and its own `epmd`, by which nodes find each
    other, for itself. All ends with this process, however that ends.
    """

    def __init__(self, settings: Mapping[str, Setting] | None = None) -> None:
        self._settings = settings or {}
        self._names: Daemon | None = None
        self._names_port = 0
        self._daemon: Daemon | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process of the broker; None when it does not run."""
        return self._daemon.pid if self._daemon else None

    def url(self, host: str = "%2F") -> str:
        """Where to connect to, and to which virtual host. The port stays the same through every restart."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{host}"

    def start(self) -> None:
        """Start it, with all that was in it, and wait until it answers. Lawful when it runs."""
        if self.pid:
            return
        program = find()
        if program is None:
            raise ServerError("there is no RabbitMQ: install your system's package, rabbitmq-server")
        try:
            if self._names is None:
                self._names = Daemon("epmd", Path(tempfile.gettempdir()), "KILL")
                self._run_names(self._names)
            if self._daemon is None:
                self._daemon = Daemon("RabbitMQ", fast_place(), "KILL")
            self._run(self._daemon, program)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Shut it down in good order. Lawful when it does not run."""
        if self._daemon:
            self._daemon.end(signal.SIGTERM)

    def kill(self) -> None:
        """`kill -9`, as of a broker whose queues are some minutes old. Lawful when it does not run.

        RabbitMQ 3.10 writes only every three minutes which quorum queues there are. Killed before that, it starts again
        with an empty queue that has no leader, whatever it had confirmed. So that is written first.
        """
        if self._daemon and self._daemon.pid:
            self.evaluate("[dets:sync(Table) || Table <- dets:all()]")
            self._daemon.end(signal.SIGKILL)

    def close(self) -> None:
        """End it, and remove its data. Lawful twice."""
        for daemon in (self._daemon, self._names):
            if daemon:
                daemon.close()
        self._daemon = self._names = None

    def log(self) -> str:
        """All that it has said."""
        return self._daemon.log() if self._daemon else ""

    def evaluate(self, expression: str) -> str:
        """What the broker makes of an Erlang expression: so one asks and tells it what AMQP has no words for."""
        assert self._daemon is not None
        asked = subprocess.run(
            ["erl_call", "-r", "-sname", _NODE, "-e"],
            check=False,
            cwd=self._daemon.folder,
            env=self._environment(self._daemon),
            input=f"{expression}.\n",
            capture_output=True,
            text=True,
            timeout=_ASKING_SECONDS,
            **account.options(),
        )
        if asked.returncode or not asked.stdout.startswith("{ok, "):
            raise ServerError(f"RabbitMQ does not evaluate {expression}: {asked.stdout}{asked.stderr}")
        return asked.stdout.removeprefix("{ok, ").removesuffix("}")

    @contextmanager
    def host(self) -> Generator[str]:
        """The URL of a new virtual host, removed with the block, with all that is in it and all who are connected."""
        name = f"made_{secrets.token_hex(6)}"
        self.evaluate(
            f'ok = rabbit_vhost:add(<<"{name}">>, <<"servers">>), ok = rabbit_auth_backend_internal:set_permissions('
            f'<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"servers">>)'
        )
        try:
            yield self.url(name)
        finally:
            if self.pid:
                self.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"servers">>)')

    def _run_names(self, names: Daemon) -> None:
        """On whichever port it gets."""
        for _ in range(_PORTS_TRIED):
            self._names_port = free_port()
            names.start(["epmd", "-port", str(self._names_port), "-address", "127.0.0.1"], {"PATH": _programs()})
            if names.becomes(lambda: _listens(self._names_port)):
                return
        raise ServerError(f"epmd does not start:\n{names.said()}")

    def _run(self, daemon: Daemon, program: Path) -> None:
        """On the port it has; the first time, on whichever it gets."""
        for _ in range(1 if self.port else _PORTS_TRIED):
            port = self.port or free_port()
            (daemon.folder / "rabbitmq.conf").write_text(self._written(port))
            (daemon.folder / "enabled_plugins").write_text("[].\n")
            said = len(daemon.log())
            daemon.start([program], self._environment(daemon))
            if daemon.becomes(lambda said=said: "Server startup complete" in daemon.log()[said:]):
                self.port = port
                return
            if "eaddrinuse" not in daemon.log()[said:]:
                break
        raise ServerError(f"RabbitMQ does not start:\n{daemon.said()}")

    def _written(self, port: int) -> str:
        settings: dict[str, Setting] = {"listeners.tcp.1": f"127.0.0.1:{port}", **self._settings}
        return "".join(
            f"{name} = {str(value).lower() if isinstance(value, bool) else value}\n" for name, value in settings.items()
        )

    def _environment(self, daemon: Daemon) -> dict[str, str]:
        folder = str(daemon.folder)
        return {
            "PATH": _programs(),
            "LC_ALL": "C.UTF-8",
            # Erlang keeps the cookie there.
            "HOME": folder,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names_port),
            # The script becomes the broker, so that what we signal is the broker, and no shell before it.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/config",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_NODENAME": _NODE,
            "RABBITMQ_PLUGINS_EXPAND_DIR": f"{folder}/plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
        }


def _programs() -> str:
    return os.environ.get("PATH", os.defpath)


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0
