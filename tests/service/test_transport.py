"""Addresses, listening, TLS and framed streams."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from qnodeos.api.framing import frame
from qnodeos.errors import (
    ConfigurationError,
    ConnectionLostError,
    MalformedMessageError,
    SlowReaderError,
    UntrustedPeerError,
)
from qnodeos.transport import Address, BlockingStream, Stream, TlsFiles, listen
from qnodeos.transport.listening import address_of
from tests.service.certificates import Authority

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


# --- addresses ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["unix:/run/qnodeos/a.sock", "unix:run/a.sock", "tcp:127.0.0.1:7001", "tcp:[::1]:0"],
)
def test_an_address_is_written_as_it_was_read(text):
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "unix:", "tcp:", "tcp:host", "tcp::1", "tcp:h:x", "tcp:h:65536", "tcp:h:-1", "http://a"],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigurationError, match="is no address"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("unix:/a", True),
        ("tcp:127.0.0.1:1", True),
        ("tcp:127.9.9.9:1", True),
        ("tcp:[::1]:1", True),
        ("tcp:localhost:1", True),
        ("tcp:0.0.0.0:1", False),
        ("tcp:[::]:1", False),
        ("tcp:192.168.1.2:1", False),
        ("tcp:example.org:1", False),
    ],
)
def test_which_addresses_leave_the_machine(text, local):
    assert Address.parse(text).is_local is local


def test_relative_paths_are_taken_from_a_folder(tmp_path):
    assert Address.parse("unix:a.sock").relative_to(tmp_path).path == str(tmp_path / "a.sock")
    assert Address.parse("unix:/a.sock").relative_to(tmp_path).path == "/a.sock"


def test_a_path_too_long_for_a_socket_is_refused():
    with pytest.raises(ConfigurationError, match="at most 107 bytes"):
        Address(path="/" + "x" * 107).resolve()


# --- listening ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["tcp:0.0.0.0:0", "tcp:[::]:0", "tcp:example.org:0"])
def test_nothing_listens_beyond_this_machine_without_tls(text):
    with pytest.raises(ConfigurationError, match="no TLS is configured"):
        listen(Address.parse(text), None)


def test_with_tls_it_may(tmp_path, authority):
    files = authority.issue(tmp_path, "server")
    with closing(listen(Address.parse("tcp:0.0.0.0:0"), files)) as listener:
        assert address_of(listener).port > 0


def test_a_socket_left_behind_is_replaced_and_one_in_use_is_not(tmp_path):
    address = Address(path=str(tmp_path / "a.sock"))
    listen(address, None).close()
    with closing(listen(address, None)):
        assert os.stat(address.path).st_mode & 0o777 == 0o660
        with pytest.raises(ConfigurationError, match="in use"):
            listen(address, None)


def test_a_file_that_is_no_socket_is_not_replaced(tmp_path):
    path = tmp_path / "data"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="no socket"):
        listen(Address(path=str(path)), None)
    assert path.read_text() == "precious"


def test_a_port_in_use_is_reported():
    with (
        closing(listen(Address.parse("tcp:127.0.0.1:0"), None)) as listener,
        pytest.raises(ConfigurationError, match=r"cannot listen on tcp:127\.0\.0\.1"),
    ):
        listen(address_of(listener), None)


# --- streams without TLS --------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[Stream, BlockingStream]]:
    ours, theirs = socket.socketpair()
    stream, blocking = (
        Stream(ours, is_server=True, max_outbound_bytes=1 << 20),
        BlockingStream(theirs),
    )
    yield stream, blocking
    stream.close()
    blocking.close()


def test_payloads_pass_both_ways(pair):
    stream, blocking = pair
    blocking.send(b"one")
    blocking.send(b"two")
    assert stream.receive() == [b"one", b"two"]
    stream.send(b"three")
    assert blocking.receive(PATIENCE_S) == b"three"
    assert stream.receive() == []


def test_a_slow_reader_is_noticed_and_memory_stays_bounded(pair):
    stream, _ = pair
    with pytest.raises(SlowReaderError):
        for _ in range(10_000):
            stream.send(bytes(10_000))
    assert stream.wants_write
    assert stream.outbound_bytes <= stream.max_outbound_bytes


def test_what_waits_is_sent_in_order_when_the_reader_reads(pair):
    stream, blocking = pair
    wanted = [bytes([number]) * 50_000 for number in range(20)]
    for payload in wanted:
        stream.send(payload)
    assert stream.wants_write
    got: list[bytes] = []
    while len(got) < len(wanted):
        stream.flush()
        got.append(blocking.receive(PATIENCE_S))
    assert got == wanted


def test_the_end_of_the_connection_is_an_error_at_both_ends(pair):
    stream, blocking = pair
    blocking.close()
    with pytest.raises(ConnectionLostError):
        stream.receive()
    ours, theirs = socket.socketpair()
    theirs.close()
    other = BlockingStream(ours)
    with closing(other), pytest.raises(ConnectionLostError):
        other.receive()


def test_a_timeout_keeps_what_has_come():
    ours, theirs = socket.socketpair()
    with closing(ours), closing(BlockingStream(theirs)) as blocking:
        raw = frame(b"payload")
        ours.sendall(raw[:5])
        with pytest.raises(TimeoutError):
            blocking.receive(0)
        ours.sendall(raw[5:])
        assert blocking.receive(PATIENCE_S) == b"payload"


def test_a_waiting_thread_can_be_released(pair):
    _, blocking = pair
    seen: list[Exception] = []

    def wait() -> None:
        try:
            blocking.receive()
        except ConnectionLostError as error:
            seen.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    blocking.shut_down()
    thread.join(PATIENCE_S)
    assert len(seen) == 1


def test_garbage_is_a_typed_error():
    ours, theirs = socket.socketpair()
    with closing(theirs), closing(Stream(ours, is_server=True)) as stream:
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(MalformedMessageError):
            stream.receive()


def test_nobody_there_is_a_typed_error(tmp_path):
    with pytest.raises(ConnectionLostError, match="does it run"):
        BlockingStream.connect(
            Address(path=str(tmp_path / "nobody.sock")), None, timeout_s=PATIENCE_S
        )


# --- streams with TLS -----------------------------------------------------------------


def meet(
    server: TlsFiles, client: TlsFiles | None, name: str
) -> tuple[tuple[str, ...], list[bytes], Exception | None, Exception | None]:
    """A server in an event loop and a client in a thread exchange a payload."""
    ours, theirs = socket.socketpair()
    # A socket pair has no host; the context and the name decide.
    client_error: list[Exception] = []

    def dial() -> None:
        try:
            if client is None:
                blocking = BlockingStream(theirs)
            else:
                wrapped = client.client_context().wrap_socket(theirs, server_hostname=name)
                blocking = BlockingStream(wrapped)
            with closing(blocking):
                blocking.send(b"ping" * 10_000)
                assert blocking.receive(PATIENCE_S) == b"pong"
        except Exception as error:
            client_error.append(error)
        finally:
            theirs.close()

    thread = threading.Thread(target=dial)
    thread.start()
    got: list[bytes] = []
    server_error: Exception | None = None
    stream = Stream(ours, context=server.server_context(), is_server=True)
    try:
        while not got:
            assert select.select([stream], [], [], PATIENCE_S)[0]
            got = stream.receive()
        stream.send(b"pong")
    except Exception as error:
        server_error = error
    names = stream.peer_names if server_error is None else ()
    stream.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    return names, got, server_error, client_error[0] if client_error else None


def test_two_ends_of_one_authority_understand_each_other(tmp_path, authority):
    server = authority.issue(tmp_path / "s", "server-node")
    client = authority.issue(tmp_path / "c", "client-node")
    names, got, server_error, client_error = meet(server, client, "server-node")
    assert (server_error, client_error) == (None, None)
    assert got == [b"ping" * 10_000]
    assert names == ("client-node",)


def test_a_client_of_another_authority_is_refused(tmp_path, authority):
    server = authority.issue(tmp_path / "s", "server-node")
    client = Authority().issue(tmp_path / "c", "client-node", trusts=authority)
    _, got, server_error, client_error = meet(server, client, "server-node")
    assert isinstance(server_error, UntrustedPeerError)
    assert client_error is not None
    assert got == []


def test_a_client_without_a_certificate_is_refused(tmp_path, authority):
    server = authority.issue(tmp_path / "s", "server-node")
    _, got, server_error, _ = meet(server, None, "")
    assert isinstance(server_error, UntrustedPeerError)
    assert got == []


def test_an_expired_certificate_is_refused(tmp_path, authority):
    server = authority.issue(tmp_path / "s", "server-node")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    client = authority.issue(tmp_path / "c", "client-node", not_after=yesterday)
    _, got, server_error, _ = meet(server, client, "server-node")
    assert isinstance(server_error, UntrustedPeerError)
    assert got == []


def test_a_server_with_another_name_is_refused(tmp_path, authority):
    server = authority.issue(tmp_path / "s", "somebody-else")
    client = authority.issue(tmp_path / "c", "client-node")
    _, got, server_error, client_error = meet(server, client, "server-node")
    assert client_error is not None and "server-node" in str(client_error)
    assert server_error is not None
    assert got == []


def test_both_ends_can_be_event_loops(tmp_path, authority):
    server = authority.issue(tmp_path / "s", "server-node")
    client = authority.issue(tmp_path / "c", "client-node")
    ours, theirs = socket.socketpair()
    listening = Stream(ours, context=server.server_context(), is_server=True)
    dialling = Stream(theirs, context=client.client_context(), expected_name="server-node")
    with closing(listening), closing(dialling):
        while not (listening.is_established and dialling.is_established):
            assert listening.receive() == []
            assert dialling.receive() == []
        dialling.send(b"hello")
        assert listening.receive() == [b"hello"]
        assert dialling.peer_names == ("server-node",)


def test_nothing_is_sent_in_the_clear_before_the_handshake(tmp_path, authority):
    client = authority.issue(tmp_path / "c", "client-node")
    ours, theirs = socket.socketpair()
    stream = Stream(theirs, context=client.client_context(), expected_name="server-node")
    with closing(ours), closing(stream), pytest.raises(ConnectionLostError, match="handshake"):
        stream.send(b"secret")


# --- files ----------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path, authority):
    files = authority.issue(tmp_path, "node")
    files.authority.unlink()
    with pytest.raises(ConfigurationError, match=r"authority\.pem"):
        files.server_context()


def test_a_key_that_others_can_read_is_refused(tmp_path, authority):
    files = authority.issue(tmp_path, "node")
    files.key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        files.client_context()


def test_a_key_of_another_certificate_is_refused(tmp_path, authority):
    files = authority.issue(tmp_path / "a", "node")
    other = authority.issue(tmp_path / "b", "node")
    mixed = files.model_copy(update={"key": other.key})
    with pytest.raises(ConfigurationError, match=r"certificate\.pem"):
        mixed.server_context()
