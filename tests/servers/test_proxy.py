"""The network that tests put between a client and its server."""

import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import cast

import psycopg
import pytest

from tests.support.proxy import Proxy, Way
from tests.support.waiting import wait_until

SECONDS = 20.0
"""How long to wait for what comes."""
A_WHILE = 0.1
"""How long to wait for what does not come."""


class Echo(socketserver.ThreadingTCPServer):
    """Says again what it is told, and remembers it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answerer)
        self.port: int = self.server_address[1]
        self.heard = b""
        self.open: set[Answerer] = set()
        self.resets = 0


class Answerer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        echo = cast("Echo", self.server)
        echo.open.add(self)
        try:
            while data := self.request.recv(65536):
                echo.heard += data
                self.request.sendall(data)
        except ConnectionResetError:
            echo.resets += 1
        finally:
            echo.open.remove(self)


class Client:
    """A connection to a port."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, size: int) -> bytes:
        """So many bytes, or fewer when there is no more."""
        received = b""
        while len(received) < size and (data := self.socket.recv(size - len(received))):
            received += data
        return received

    def hears_nothing(self) -> bool:
        """Neither data nor an end."""
        return not select.select([self.socket], [], [], A_WHILE)[0]

    def is_ended(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def asks(self, data: bytes) -> bytes:
        self.send(data)
        return self.receive(len(data))

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as echo:
        thread = threading.Thread(target=echo.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield echo
        echo.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Callable[[], Client]]:
    """Makes clients of the proxy."""
    with ExitStack() as ending:
        yield lambda: ending.enter_context(closing(Client(proxy.port)))


@pytest.fixture
def client(connect: Callable[[], Client]) -> Client:
    client = connect()
    assert client.asks(b"hello") == b"hello"
    return client


def test_all_passes_both_ways(client: Client) -> None:
    data = bytes(range(256)) * 4096
    sending = threading.Thread(target=client.send, args=[data])
    sending.start()
    assert client.receive(len(data)) == data
    sending.join()


def test_what_is_open_is_swallowed_for_good_with_its_end_and_what_comes_after_is_well(
    proxy: Proxy, echo: Echo, client: Client, connect: Callable[[], Client]
) -> None:
    proxy.swallow()
    client.send(b"lost")
    assert connect().asks(b"well") == b"well"
    assert client.hears_nothing()
    client.close()
    assert connect().asks(b"well") == b"well"
    assert len(echo.open) == 3
    assert b"lost" not in echo.heard


def test_it_takes_a_url_and_gives_its_own(proxy: Proxy) -> None:
    assert proxy.url("postgresql://a@127.0.0.1:1/b?c=d") == f"postgresql://a@127.0.0.1:{proxy.port}/b?c=d"


def test_the_server_learns_that_the_client_has_closed(echo: Echo, client: Client) -> None:
    client.close()
    wait_until(lambda: not echo.open, "the server knows")
    assert echo.resets == 0


def test_the_client_hears_the_last_words_when_it_has_said_its_own(client: Client) -> None:
    client.send(b"last")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.receive(100) == b"last"


def test_where_no_server_listens_the_connection_ends(proxy: Proxy, connect: Callable[[], Client]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        proxy.server_port = other.getsockname()[1]
    with pytest.raises(ConnectionResetError):
        connect().receive(1)


def test_in_a_blackhole_nothing_arrives_until_it_heals(echo: Echo, proxy: Proxy, client: Client) -> None:
    proxy.blackhole()
    client.send(b"lost?")
    assert client.hears_nothing()
    assert echo.heard == b"hello"
    proxy.heal()
    assert client.receive(5) == b"lost?"


def test_a_blackhole_of_one_way_lets_the_other_pass(echo: Echo, proxy: Proxy, client: Client) -> None:
    proxy.blackhole(Way.replies)
    client.send(b"one")
    wait_until(lambda: echo.heard == b"helloone", "the server hears")
    assert client.hears_nothing()
    proxy.heal()
    proxy.blackhole(Way.requests)
    client.send(b"two")
    assert client.receive(3) == b"one"
    assert client.hears_nothing()
    assert echo.heard == b"helloone"


def test_in_a_blackhole_who_connects_is_connected_and_waits(proxy: Proxy, connect: Callable[[], Client]) -> None:
    proxy.blackhole()
    client = connect()
    client.send(b"anybody?")
    assert client.hears_nothing()
    proxy.heal()
    assert client.receive(8) == b"anybody?"


@pytest.mark.parametrize("is_abrupt", [False, True])
def test_in_a_blackhole_the_server_does_not_learn_of_the_clients_end(
    echo: Echo, proxy: Proxy, client: Client, is_abrupt: bool
) -> None:
    proxy.blackhole()
    if is_abrupt:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    time.sleep(A_WHILE)  # no event tells of what does not happen
    assert len(echo.open) == 1
    proxy.heal()
    wait_until(lambda: not echo.open, "the server knows")
    assert echo.resets == is_abrupt


def test_in_a_blackhole_the_client_does_not_learn_of_the_servers_end(
    proxy: Proxy, connect: Callable[[], Client]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy.server_port = listening.getsockname()[1]
        client = connect()
        server, _ = listening.accept()
    proxy.blackhole()
    server.close()
    assert client.hears_nothing()
    proxy.heal()
    assert client.receive(1) == b""


def test_a_reset_ends_every_connection_at_both_ends_and_every_new_one(
    echo: Echo, proxy: Proxy, client: Client, connect: Callable[[], Client]
) -> None:
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.receive(1)
    wait_until(lambda: echo.resets == 1, "the server knows")
    with pytest.raises(ConnectionResetError):
        connect().receive(1)
    proxy.heal()
    assert connect().asks(b"again") == b"again"


def test_a_reset_reaches_connections_in_a_blackhole(echo: Echo, proxy: Proxy, client: Client) -> None:
    proxy.blackhole()
    client.send(b"lost")
    assert client.hears_nothing()
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.receive(1)
    wait_until(lambda: not echo.open, "the server knows")
    assert echo.heard == b"hello"


def test_where_it_is_slow_each_way_takes_its_time(proxy: Proxy, client: Client) -> None:
    proxy.slow(0.2)
    assert seconds_of_an_answer(client) >= 0.4
    proxy.heal()
    assert min(seconds_of_an_answer(client) for _ in range(3)) < 0.2


def seconds_of_an_answer(client: Client) -> float:
    began = time.monotonic()
    assert client.asks(b"?") == b"?"
    return time.monotonic() - began


def test_a_torn_reply_ends_in_its_middle_and_the_server_has_heard_all(
    echo: Echo, proxy: Proxy, client: Client, connect: Callable[[], Client]
) -> None:
    proxy.tear(3)
    assert client.asks(b"question") == b"que"
    assert echo.heard == b"helloquestion"
    assert not echo.open
    assert proxy.cuts == 1
    assert connect().asks(b"all is well") == b"all is well"


def test_replies_that_are_not_longer_count_as_one(proxy: Proxy, client: Client) -> None:
    proxy.tear(6)
    assert client.asks(b"four") == b"four"
    assert proxy.cuts == 0
    assert client.asks(b"more") == b"mo"


def test_a_lost_answer_ends_before_its_first_byte_and_the_server_has_heard_all(
    echo: Echo, proxy: Proxy, client: Client, connect: Callable[[], Client]
) -> None:
    proxy.lose_answer()
    assert client.asks(b"question") == b""
    assert echo.heard == b"helloquestion"
    assert not echo.open
    assert proxy.cuts == 1
    assert connect().asks(b"all is well") == b"all is well"


def test_the_answer_that_is_lost_can_be_chosen(proxy: Proxy, client: Client, connect: Callable[[], Client]) -> None:
    other = connect()
    proxy.lose_answer(about=b"COMMIT")
    assert client.asks(b"BEGIN") == b"BEGIN"
    assert other.asks(b"BEGIN") == b"BEGIN"
    assert client.asks(b"COM") == b"COM"
    assert other.asks(b"MIT") == b"MIT"
    assert client.asks(b"MIT now") == b""
    assert other.asks(b"COMMIT") == b"COMMIT"


def test_what_was_said_before_is_not_what_is_waited_for(proxy: Proxy, client: Client) -> None:
    assert client.asks(b"COMMIT") == b"COMMIT"
    proxy.lose_answer(about=b"COMMIT")
    assert client.asks(b"BEGIN") == b"BEGIN"
    assert client.asks(b"COMMIT") == b""


def test_healed_before_it_happens_it_does_not_happen(proxy: Proxy, client: Client) -> None:
    proxy.lose_answer()
    proxy.heal()
    assert client.asks(b"question") == b"question"
    proxy.tear(8)
    assert client.asks(b"question") == b"question"
    proxy.heal()
    assert client.asks(b"question") == b"question"
    assert proxy.cuts == 0


def test_an_answer_lost_after_the_commit_leaves_what_was_committed(postgres_url: str) -> None:
    port = int(postgres_url.rpartition(":")[2].partition("/")[0])
    with Proxy(port) as proxy, psycopg.connect(proxy.url(postgres_url)) as connection:
        connection.execute("CREATE TABLE kept (number int)")
        proxy.lose_answer(about=b"COMMIT")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
        assert proxy.cuts == 1
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT * FROM kept").fetchall() == []


def test_open_connections_end_with_it(echo: Echo) -> None:
    with Proxy(echo.port) as proxy:
        clients = [Client(proxy.port)]
        assert clients[0].asks(b"hello") == b"hello"
        proxy.blackhole()
        clients += [Client(proxy.port) for _ in range(3)]
    for client in clients:
        assert client.is_ended()
        client.close()
    wait_until(lambda: not echo.open, "the server knows")
    assert not [thread for thread in threading.enumerate() if thread.name == "proxy"]
