"""The API on an address that other machines can reach: certificates at both ends, or nothing."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qnodeos.api.host_wire import PROTOCOL_VERSION, Hello, Refused, Welcome, decode_server, encode
from qnodeos.errors import ConfigurationError, PeerError, UntrustedPeerError
from qnodeos.service.listeners import open_listeners
from qnodeos.service.node_file import ApiConfig
from qnodeos.transport import Address, Stream, TlsFiles
from tests.service.certificates import Authority
from tests.service.service_bench import Bench, benches

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.fixture
def make():
    yield from benches()


@pytest.fixture(scope="module")
def authority():
    return Authority()


def public(make, authority: Authority, folder: Path, **limits: int) -> Bench:
    """A service that listens on all interfaces."""
    files = authority.issue(folder / "service", "client")
    bench: Bench = make(
        fields={"api": {"listen": ["tcp:0.0.0.0:0"]}, "tls": files.model_dump()}, **limits
    )
    return bench


class TlsPeer:
    """The other end, in this thread.

    Attributes:
        error: what ended the connection.
    """

    def __init__(self, bench: Bench, files: TlsFiles | None) -> None:
        self._bench = bench
        connection = socket.socket()
        connection.connect(("127.0.0.1", bench.service.server.addresses[0].port))
        context = None if files is None else files.client_context()
        self.stream = Stream(connection, context=context, expected_name="client")
        self.received: list[object] = []
        self.error: PeerError | None = None

    def turn(self) -> None:
        self._bench.turn()
        if self.error is None:
            try:
                self.received += map(decode_server, self.stream.receive())
            except PeerError as error:
                self.error = error

    def greet(self) -> None:
        """Shake hands and say Hello; until there is an answer or an error."""
        greeted = False

        def is_done() -> bool:
            nonlocal greeted
            self.turn()
            if self.stream.is_established and not greeted and self.error is None:
                greeted = True
                self.stream.send(encode(Hello(PROTOCOL_VERSION, "tls")))
            return bool(self.received or self.error)

        self._bench.until(is_done)


def test_with_a_certificate_one_is_welcome(make, authority, tmp_path):
    bench = public(make, authority, tmp_path)
    peer = TlsPeer(bench, authority.issue(tmp_path / "c", "alice"))
    peer.greet()
    assert isinstance(peer.received[0], Welcome)
    peer.stream.close()
    bench.check_clean()


@pytest.mark.parametrize("which", ["stranger", "expired", "none"])
def test_without_a_good_certificate_one_is_not(make, authority, tmp_path, which):
    bench = public(make, authority, tmp_path)
    files = {
        "stranger": lambda: Authority().issue(tmp_path / "c", "alice", trusts=authority),
        "expired": lambda: authority.issue(tmp_path / "c", "alice", not_after=LONG_AGO),
        "none": lambda: None,
    }[which]()
    peer = TlsPeer(bench, files)
    peer.greet()
    assert peer.error is not None
    assert not peer.received
    counters = bench.service.server.counters
    assert (counters.refused_untrusted, counters.welcomed) == (1, 0)
    peer.stream.close()
    bench.check_clean()


def test_the_client_checks_the_service(make, authority, tmp_path):
    bench = public(make, authority, tmp_path)
    files = authority.issue(tmp_path / "c", "alice", trusts=Authority())
    peer = TlsPeer(bench, files)
    peer.greet()
    assert isinstance(peer.error, UntrustedPeerError)
    peer.stream.close()
    bench.check_clean()


def test_half_a_handshake_runs_out_of_time(make, authority, tmp_path):
    bench = public(make, authority, tmp_path, handshake_ms=1_000)
    connection = socket.create_connection(("127.0.0.1", bench.service.server.addresses[0].port))
    connection.send(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
    bench.turns(3)
    assert bench.service.server.open_sockets == 1
    bench.pass_ms(1_500)
    assert bench.service.server.open_sockets == 0
    assert bench.service.server.counters.timed_out_handshakes == 1
    connection.close()


def test_beyond_the_limit_the_reason_is_told_in_confidence(make, authority, tmp_path):
    bench = public(make, authority, tmp_path, connections=1)
    files = authority.issue(tmp_path / "c", "alice")
    first, second = TlsPeer(bench, files), TlsPeer(bench, files)
    first.greet()
    second.greet()
    assert isinstance(first.received[0], Welcome)
    assert isinstance(second.received[0], Refused)
    first.stream.close()
    second.stream.close()


def test_without_tls_it_does_not_start(make):
    bench = make()
    open_to_all = bench.node.model_copy(
        update={"api": ApiConfig(listen=(Address(host="0.0.0.0"),))}
    )
    with pytest.raises(ConfigurationError, match="other machines"):
        open_listeners(open_to_all)
