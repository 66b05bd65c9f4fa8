"""Classical sockets between the programs of different nodes: who connects to whom.

Each process that runs programs listens for those of other nodes. Between two processes there
is one connection, which the node with the smaller id makes, as soon as a program there opens
a socket; it tries again until the other process is there, so either may start first. What
travels on the connection is the business of `qnodeos.cnpu.app_session`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Mapping
from threading import Event, Lock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Final

from qnodeos.api.app_wire import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    AppHello,
    AppMessage,
    AppRefused,
    AppWelcome,
    decode,
    encode,
)
from qnodeos.cnpu.app_session import SEND_TIMEOUT_S, START_TIMEOUT_S, Session
from qnodeos.errors import (
    ConfigurationError,
    ConnectionLostError,
    PeerProtocolError,
    ProgramStoppedError,
    QNodeOSError,
)
from qnodeos.transport import Address, Stream, TlsFiles, listen
from qnodeos.transport.keepalive import keep_alive
from qnodeos.transport.listening import address_of, check_address

if TYPE_CHECKING:
    from qnodeos.cnpu.rehearsal import Rehearsals

HANDSHAKE_TIMEOUT_S: Final = 5.0
"""Time for connecting and greeting (assumed)."""
HANDSHAKES_MAX: Final = 16
"""Connections that may be in their handshake at once; the newest replaces the oldest."""
DRAIN_TIMEOUT_S: Final = 5.0
"""At the end, time for the last messages to reach the other machine (assumed)."""

_RETRY_FIRST_S: Final = 0.02
_RETRY_MAX_S: Final = 0.5
_PAUSE_S: Final = 0.1
"""How long nothing is accepted when the system has no descriptor left (assumed)."""


class AppNetwork:
    """This process's end of all classical sockets between applications.

    Args:
        node_name: of this node.
        node_ids: all nodes and their numbers.
        applications: node of each application (role).
        listen_on: where the processes of other nodes connect to; None if none do.
        peers: where the processes of other nodes listen.
        tls: for addresses that are not local.
        start_timeout_s: how long a program waits for another node's process to be there.
        send_timeout_s: how long a program waits for a receiver that takes no messages.
        spin_s: how long a program that waits keeps looking before it sleeps.
        rehearsals: what a program that waits does meanwhile; None for nothing.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """

    def __init__(
        self,
        *,
        node_name: str,
        node_ids: Mapping[str, int],
        applications: Mapping[str, str],
        listen_on: Address | None,
        peers: Mapping[str, Address],
        tls: TlsFiles | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
        send_timeout_s: float = SEND_TIMEOUT_S,
        spin_s: float = 0.0,
        rehearsals: Rehearsals | None = None,
    ) -> None:
        self._node_name = node_name
        self._node_ids = node_ids
        self._applications = applications
        self._peers = peers
        self._tls = tls
        self._start_timeout_s = start_timeout_s
        self._send_timeout_s = send_timeout_s
        self._spin_s = spin_s
        self._rehearsals = rehearsals
        self._mutex = Lock()
        self._sessions: dict[str, Session] = {}
        self._connecting: set[Session] = set()
        self._threads: set[Thread] = set()
        self._greeting: dict[socket.socket, None] = {}
        self._stopped = Event()
        self._is_closed = False
        self._listener: socket.socket | None = None
        self.address: Address | None = None
        if listen_on is not None:
            try:
                self._listener = listen(listen_on, tls)
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"{error} A second `qnodeos run` at one node needs an address of its own: "
                    "--listen here, and --reach at the other nodes"
                ) from error
            self.address = address_of(self._listener)
            self._needs_tls = not listen_on.is_local
        self._stop_reader, self._stop_writer = os.pipe()
        if self._listener is not None:
            self._start(self._accept, self._listener)

    # --- programs ---------------------------------------------------------------------

    def session_with(self, node: str) -> Session:
        """The session with the programs of a node; starts to connect if there is none.

        Raises:
            ConfigurationError: nothing says where its programs are.
            ProgramStoppedError: the programs of this process are being stopped.
        """
        with self._mutex:
            session = self._session(node)
            if node != self._node_name and not session.is_open and self._is_caller(node):
                self._connect_to(node, session)
            return session

    def _session(self, node: str) -> Session:
        if self._stopped.is_set():
            raise ProgramStoppedError("the programs of this process are being stopped")
        session = self._sessions.get(node)
        if session is not None and not session.is_over:
            return session
        if node != self._node_name and node not in self._peers and self._listener is None:
            raise ConfigurationError(
                f"nothing says where programs of node {node} listen: give its `applications` in "
                "the node file"
            )
        session = self._sessions[node] = Session(
            self._node_name,
            node,
            self._applications,
            start_timeout_s=self._start_timeout_s,
            send_timeout_s=self._send_timeout_s,
            spin_s=self._spin_s,
            rehearsals=self._rehearsals,
        )
        return session

    def _is_caller(self, node: str) -> bool:
        """Whether this node connects to another, rather than the other to this one."""
        return self._node_ids[self._node_name] < self._node_ids[node]

    # --- the end ----------------------------------------------------------------------

    def stop(self) -> None:
        """Make every program that waits fail with ProgramStoppedError."""
        self._stopped.set()
        with self._mutex:
            for session in self._sessions.values():
                session.end(ProgramStoppedError("the program was stopped"))

    def close(self) -> None:
        """Say goodbye and close everything; programs must have ended, or be stopped."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stopped.set()
        with self._mutex:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.drain(DRAIN_TIMEOUT_S)
            session.end(ProgramStoppedError("the program was stopped"))
        os.write(self._stop_writer, b"x")
        for thread in self._running():
            if thread is not current_thread():
                thread.join()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self.address is not None and self.address.is_unix:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.address.path)
        os.close(self._stop_reader)
        os.close(self._stop_writer)

    def _running(self) -> list[Thread]:
        with self._mutex:
            return list(self._threads)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                with self._mutex:
                    self._threads.discard(thread)

        thread = Thread(target=run, name=f"qnodeos {work.__name__.strip('_')}", daemon=True)
        self._threads.add(thread)
        thread.start()

    # --- connecting; in threads of their own ------------------------------------------

    def _connect_to(self, node: str, session: Session) -> None:
        if session not in self._connecting:
            self._connecting.add(session)
            self._start(self._connect, node, session)

    def _connect(self, node: str, session: Session) -> None:
        """Try until the other process is there."""
        wait_s = _RETRY_FIRST_S
        try:
            while not self._stopped.is_set() and not session.is_over:
                try:
                    connection, stream, payloads = self._call(node)
                    if not session.opened(connection, stream, payloads):
                        stream.close()
                    return
                except (ConnectionLostError, TimeoutError) as error:
                    session.problem = str(error)
                except QNodeOSError as error:
                    session.end(error)
                    return
                self._stopped.wait(wait_s)
                wait_s = min(2 * wait_s, _RETRY_MAX_S)
        finally:
            with self._mutex:
                self._connecting.discard(session)

    def _call(self, node: str) -> tuple[socket.socket, Stream, list[bytes]]:
        address = self._peers.get(node)
        if address is None:
            raise ConfigurationError(
                f"nothing says where programs of node {node} listen: give its `applications` in "
                "the node file"
            )
        check_address(address, self._tls)
        context = None
        if not address.is_local:
            assert self._tls is not None
            context = self._tls.client_context()
        family, place = address.resolve()
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(HANDSHAKE_TIMEOUT_S)
            try:
                connection.connect(place)
            except OSError as error:
                raise ConnectionLostError(f"cannot connect to {address}: {error}") from error
            keep_alive(connection)
            stream = Stream(
                connection, context=context, expected_name=node, max_frame_bytes=MAX_FRAME_BYTES
            )
            handshake = _Handshake(stream, self._stop_reader)
            handshake.establish()
            handshake.say(AppHello(PROTOCOL_VERSION, self._node_name))
            answer = handshake.hear()
            if isinstance(answer, AppRefused):
                raise ConnectionLostError(f"{address} refuses the connection: {answer.text}")
            if not isinstance(answer, AppWelcome) or answer.version != PROTOCOL_VERSION:
                raise PeerProtocolError(
                    f"{address} does not answer like a CNPU of version {PROTOCOL_VERSION}"
                )
            if answer.node != node:
                raise PeerProtocolError(
                    f"the programs at {address} are of node {answer.node}, not {node}; mend "
                    "`applications` in the node file"
                )
            return connection, stream, handshake.heard
        except BaseException:
            connection.close()
            raise

    def _accept(self, listener: socket.socket) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._stop_reader, select.POLLIN)
        while not self._stopped.is_set():
            if self._stop_reader in dict(poll.poll()):
                return
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue  # it has gone already
            except OSError:  # no descriptor left: do not spin on it
                self._stopped.wait(_PAUSE_S)
                continue
            with self._mutex:
                if len(self._greeting) >= HANDSHAKES_MAX:
                    oldest = next(iter(self._greeting))
                    del self._greeting[oldest]
                    with contextlib.suppress(OSError):  # it may be gone already
                        oldest.shutdown(socket.SHUT_RDWR)  # which its thread notices
                self._greeting[connection] = None
                self._start(self._welcome, connection)

    def _welcome(self, connection: socket.socket) -> None:
        try:
            keep_alive(connection)
            context = None
            if self._needs_tls:
                assert self._tls is not None
                context = self._tls.server_context()
            stream = Stream(
                connection, context=context, is_server=True, max_frame_bytes=MAX_FRAME_BYTES
            )
            handshake = _Handshake(stream, self._stop_reader)
            handshake.establish()
            problem, session = self._admit(handshake.hear(), stream)
            if session is None:
                handshake.say(AppRefused(problem))
                connection.close()
                return
            handshake.say(AppWelcome(PROTOCOL_VERSION, self._node_name))
            with self._mutex:
                if self._greeting.pop(connection, self) is self:
                    raise ConnectionLostError("it had to make room for newer ones")
            if not session.opened(connection, stream, handshake.heard):
                connection.close()
        except (QNodeOSError, TimeoutError, OSError):
            connection.close()  # whoever it was has noticed, or is none of ours
        finally:
            with self._mutex:
                self._greeting.pop(connection, None)

    def _admit(self, hello: object, stream: Stream) -> tuple[str, Session | None]:
        """The session a caller belongs to, or why there is none."""
        if not isinstance(hello, AppHello) or hello.version != PROTOCOL_VERSION:
            return f"that is no greeting of a CNPU of version {PROTOCOL_VERSION}", None
        node = hello.node
        if node not in self._node_ids or node == self._node_name or self._is_caller(node):
            return f"node {self._node_name} expects no connection from a node {node!r}", None
        if self._needs_tls and node not in stream.peer_names:
            return f"the certificate is not of node {node}", None
        with self._mutex:
            if self._stopped.is_set():
                return f"the programs of node {self._node_name} are ending", None
            session = self._session(node)
            if session.is_open:
                session.look()
                if not session.is_over:
                    return (
                        f"another process of node {node} is connected; a second one needs another "
                        f"process of node {self._node_name} to talk to (--listen and --reach)"
                    ), None
                session = self._session(node)
            return "", session


class _Handshake:
    """The first messages on a connection, in a bounded time.

    Attributes:
        heard: payloads that have come and were not asked for yet.
    """

    def __init__(self, stream: Stream, stop_reader: int) -> None:
        self._stream = stream
        self._stop_reader = stop_reader
        self._deadline_s = monotonic() + HANDSHAKE_TIMEOUT_S
        self.heard: list[bytes] = []

    def establish(self) -> None:
        """Finish the TLS handshake, if there is one."""
        while not self._stream.is_established:
            self._wait()

    def say(self, message: AppMessage) -> None:
        """Send a message."""
        self._stream.send(encode(message))
        while self._stream.wants_write:
            self._wait()

    def hear(self) -> AppMessage:
        """The next message.

        Raises:
            TimeoutError: it does not come in time.
            QNodeOSError: the other end is none of ours, or gone.
        """
        while not self.heard:
            self._wait()
        return decode(self.heard.pop(0))

    def _wait(self) -> None:
        remaining_s = self._deadline_s - monotonic()
        poll = select.poll()
        writing = select.POLLOUT if self._stream.wants_write else 0
        poll.register(self._stream, select.POLLIN | writing)
        poll.register(self._stop_reader, select.POLLIN)
        ready = dict(poll.poll(max(0, remaining_s) * 1_000)) if remaining_s > 0 else {}
        if not ready:
            raise TimeoutError(f"no greeting came within {HANDSHAKE_TIMEOUT_S:g} s")
        if self._stop_reader in ready:
            raise ConnectionLostError("this process is ending")
        self._stream.flush()
        self.heard += self._stream.receive()
