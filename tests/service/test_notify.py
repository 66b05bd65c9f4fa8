"""What a service and systemd say to each other, with a socket in systemd's place."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qnodeos.errors import ConfigurationError
from qnodeos.service.listeners import Listener, close_all, open_listeners
from qnodeos.service.node_file import NodeFile
from qnodeos.service.notify import MAX_STATUS, ActivatedSocket, Notifier, take_sockets
from qnodeos.transport import Address


@pytest.fixture
def supervisor(tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.setblocking(False)
        yield listener


def said(supervisor) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(supervisor.recv(65536).decode())
        except BlockingIOError:
            return messages


def notifier(supervisor, clock=lambda: 0, **environment: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": supervisor.getsockname(), **environment}, clock)


# --- states -----------------------------------------------------------------------------


def test_nobody_listens():
    with Notifier({}) as alone:
        assert not (alone.ready("up") or alone.status("x") or alone.stopping() or alone.alive())


def test_states_and_status(supervisor):
    with notifier(supervisor) as service:
        assert service.ready("serving 2 programs")
        assert service.status("3 programs")
        assert service.stopping()
    first = "READY=1\nSTATUS=serving 2 programs"
    assert said(supervisor) == [first, "STATUS=3 programs", "STOPPING=1"]


def test_abstract_address():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")  # an abstract address of the kernel's choice
        listener.setblocking(False)
        name = "@" + listener.getsockname()[1:].decode()
        with Notifier({"NOTIFY_SOCKET": name}) as service:
            assert service.ready()
        assert said(listener) == ["READY=1"]


def test_a_status_cannot_smuggle_an_assignment(supervisor):
    with notifier(supervisor) as service:
        service.status("program\nMAINPID=1")
        service.status("x" * 2 * MAX_STATUS)
    first, second = said(supervisor)
    assert first == "STATUS=program MAINPID=1"
    assert len(second) == len("STATUS=") + MAX_STATUS


def test_a_supervisor_that_does_not_read_costs_nothing(supervisor):
    with notifier(supervisor) as service:
        sent = [service.status(str(number)) for number in range(100_000)]
    assert sent[0]
    assert not sent[-1]


def test_a_supervisor_that_is_gone_costs_nothing(tmp_path):
    with Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}) as service:
        assert not service.ready()


def test_closed_twice(supervisor):
    service = notifier(supervisor)
    service.close()
    service.close()
    assert not service.ready()


# --- watchdog ---------------------------------------------------------------------------


def test_signs_of_life_are_given_four_times_as_often_as_asked_for(supervisor):
    now_ns = 10**12
    service = notifier(supervisor, lambda: now_ns, WATCHDOG_USEC="2000000")
    with service:
        assert service.watchdog_interval_ns == 500_000_000
        given = []
        for _ in range(8):
            given.append(service.alive())
            now_ns += 250_000_000
    assert given == [True, False] * 4
    assert said(supervisor) == ["WATCHDOG=1"] * 4


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog(supervisor, environment):
    with notifier(supervisor, **environment) as service:
        assert service.watchdog_interval_ns is None
        assert not service.alive()
    assert not said(supervisor)


def test_a_watchdog_for_this_process(supervisor):
    service = notifier(supervisor, WATCHDOG_USEC="1000", WATCHDOG_PID=str(os.getpid()))
    with service:
        assert service.watchdog_interval_ns == 250_000


def test_a_timer_that_is_a_little_early_is_not_turned_away(supervisor):
    now_ns = 10**12
    with notifier(supervisor, lambda: now_ns, WATCHDOG_USEC="2000000") as service:
        for _ in range(10):
            assert service.alive()
            now_ns += (service.watchdog_interval_ns or 0) - 10_000


# --- activated sockets ------------------------------------------------------------------


def passed(count: int, names: str = "") -> dict[str, str]:
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count)}
    return {**environment, "LISTEN_FDNAMES": names} if names else environment


@pytest.fixture
def descriptors():
    """Copies of sockets at adjacent numbers, as systemd passes them."""
    first = 200  # beyond what a test process has open
    used: list[int] = []

    def place(*sockets: socket.socket) -> int:
        for index, item in enumerate(sockets):
            os.dup2(item.fileno(), first + index)
            used.append(first + index)
        return first

    yield place
    for number in used:
        try:
            os.close(number)
        except OSError:
            continue  # taken over and closed


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_sockets_are_taken_once_with_their_names(descriptors):
    with listener() as one, listener() as other:
        first = descriptors(one, other)
        environment = {**passed(2, "api:metrics"), "HOME": "/"}
        taken = take_sockets(environment, first)
        assert environment == {"HOME": "/"}
        assert [item.name for item in taken] == ["api", "metrics"]
        for item, original in zip(taken, (one, other), strict=True):
            assert item.socket.getsockname() == original.getsockname()
            assert not item.socket.get_inheritable()
            assert not item.socket.getblocking()
            item.socket.close()
        assert take_sockets(environment, first) == []


def test_a_connection_to_a_taken_socket_is_answered(descriptors):
    with listener() as original:
        (item,) = take_sockets(passed(1), descriptors(original))
        address = original.getsockname()
    with item.socket, socket.create_connection(address, timeout=10) as client:
        item.socket.setblocking(True)
        connection, _ = item.socket.accept()
        with connection:
            connection.sendall(b"hello")
        assert client.recv(16) == b"hello"
    assert item.name == "unknown"


def test_sockets_of_another_process_are_left_alone():
    environment = {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1"}
    assert take_sockets(environment) == []
    assert "LISTEN_FDS" in environment
    assert take_sockets({}) == []


@pytest.mark.parametrize("name", ["LISTEN_PID", "LISTEN_FDS"])
def test_variables_that_are_no_numbers(name):
    with pytest.raises(ConfigurationError, match=f"{name}='all'"):
        take_sockets({**passed(1), name: "all"})


def test_too_many():
    with pytest.raises(ConfigurationError, match="systemd passed 65 sockets, and at most 64"):
        take_sockets(passed(65))


def test_what_does_not_listen_is_refused(descriptors):
    with socket.socket() as idle, pytest.raises(ConfigurationError, match="does not listen"):
        take_sockets(passed(1, "api"), descriptors(idle))


def test_datagrams_are_refused(descriptors):
    with (
        socket.socket(type=socket.SOCK_DGRAM) as idle,
        pytest.raises(ConfigurationError, match="does not listen"),
    ):
        take_sockets(passed(1), descriptors(idle))


def test_a_bad_socket_after_a_good_one_closes_both(descriptors):
    with listener() as good, socket.socket() as bad:
        first = descriptors(good, bad)
        with pytest.raises(ConfigurationError):
            take_sockets(passed(2), first)
        for number in (first, first + 1):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)


def test_what_is_no_socket_is_refused(descriptors, tmp_path):
    with (tmp_path / "file").open("w") as file:
        os.dup2(file.fileno(), 200)
        try:
            with pytest.raises(ConfigurationError, match=r"200 .api. that systemd passed is not"):
                take_sockets(passed(1, "api"), 200)
        finally:
            os.close(200)


def test_an_address_that_systemd_has_opened_is_not_opened_again(tmp_path):
    """Whatever the node file calls it."""
    path = tmp_path / "api.sock"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        port = tcp.getsockname()[1]
        node = NodeFile.model_validate(
            {
                "name": "client",
                "node_id": 0,
                "device": {"link": "loopback"},
                "api": {"listen": [f"tcp:127.0.0.1:{port}", f"unix:{path}", "tcp:127.0.0.1:0"]},
            }
        )
        activated = [ActivatedSocket("api", item.dup()) for item in (tcp, unix)]
        listeners = open_listeners(node, activated)
        with closing_all(listeners):
            places = [item.socket.getsockname() for item in listeners]
        assert len(places) == 3
        assert {tcp.getsockname(), str(path)} < set(places)


@contextmanager
def closing_all(listeners: list[Listener]) -> Iterator[None]:
    try:
        yield
    finally:
        close_all(listeners)


def test_an_address_by_name_is_the_one_that_systemd_has_opened():
    family, place = Address.parse("tcp:localhost:0").resolve()
    with socket.socket(family) as tcp:
        tcp.bind(place)
        tcp.listen()
        port = tcp.getsockname()[1]
        node = NodeFile.model_validate(
            {
                "name": "client",
                "node_id": 0,
                "device": {"link": "loopback"},
                "api": {"listen": [f"tcp:localhost:{port}"]},
            }
        )
        listeners = open_listeners(node, [ActivatedSocket("api", tcp.dup())])
        with closing_all(listeners):
            assert len(listeners) == 1
