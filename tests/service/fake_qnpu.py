"""A QNPU service in a thread: the real kernel and codecs, a fake device, no real time.

A test may change what it says: `FakeQnpu.before` sees every message first, and what it
returns is sent instead of what the kernel would have answered.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, Self

from qnodeos.api.host_wire import (
    PROTOCOL_VERSION,
    Cancel,
    DeviceInfo,
    GetStatistics,
    Hello,
    ListProcesses,
    Message,
    Netqasm,
    Ping,
    Pong,
    ProcessInfo,
    ProcessList,
    Register,
    Reply,
    Statistics,
    Subscribe,
    Welcome,
    decode_client,
    encode,
    reply_of,
)
from qnodeos.api.netqasm import Flavour
from qnodeos.errors import ConnectionLostError
from qnodeos.transport import Address, Stream, listen
from qnodeos.transport.listening import address_of
from tests.unit.kernel_harness import make_node

DEADLINE_S: Final = 60.0
"""How long a test waits for what must come."""

Before = Callable[[int, Any], "bytes | list[Message] | None"]


class FakeQnpu:
    """See the module's docstring. Use it as a context manager.

    Args:
        flavour: NetQASM flavour.
        name: of the node.
        node_id: of the node.
        idle_timeout_s: what it says in its welcome.
        before: called with the client's number and each message; bytes are sent raw (and the
            connection closed if they are empty), messages in frames, None lets the kernel answer.

    Attributes:
        address: where it listens.
        received: every message, with its client's number.
        closed: numbers of the clients that have gone.
        limits: that it tells of.
    """

    def __init__(
        self,
        *,
        flavour: Flavour = Flavour.VANILLA,
        name: str = "here",
        node_id: int = 1,
        idle_timeout_s: float = 300.0,
        before: Before = lambda client, message: None,
    ) -> None:
        self.node = make_node(node_id=node_id, flavour=flavour)
        self.before = before
        self.received: list[tuple[int, Any]] = []
        self.closed: list[int] = []
        self.limits: dict[str, int] = {}
        self._changed = threading.Condition()
        self._flavour, self._name, self._node_id = flavour, name, node_id
        self._idle_timeout_s = idle_timeout_s
        self._listener = listen(Address(host="127.0.0.1"), None)
        self.address = address_of(self._listener)
        self._streams: dict[int, Stream] = {}
        self._clients = 0
        self._tick = 0
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = os.pipe()
        self._thread = threading.Thread(target=self._run, name="fake QNPU")

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End, as a service that is killed does."""
        if self._thread.is_alive():
            os.write(self._woken, b"x")
            self._thread.join(DEADLINE_S)
            assert not self._thread.is_alive()
            os.close(self._wake)
            os.close(self._woken)

    def wait_for(self, condition: Callable[[FakeQnpu], bool]) -> None:
        """Wait until something is so; checked after every message and every closed client."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), DEADLINE_S)

    def messages(self, kind: type) -> list[Any]:
        """The messages of one kind that have come."""
        return [message for _, message in self.received if isinstance(message, kind)]

    # --- its thread -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.fileobj == self._wake:
                        return
                    if key.fileobj is self._listener:
                        self._accept()
                    else:
                        self._serve(key.data)
        finally:
            for stream in self._streams.values():
                stream.close()
            self._listener.close()
            self._selector.close()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        client, self._clients = self._clients, self._clients + 1
        stream = self._streams[client] = Stream(connection)
        self._selector.register(stream, selectors.EVENT_READ, client)

    def _serve(self, client: int) -> None:
        stream = self._streams[client]
        try:
            payloads = stream.receive()
            for payload in payloads:
                message = decode_client(payload)
                with self._changed:
                    self.received.append((client, message))
                    self._changed.notify_all()
                self._answer(client, stream, message)
        except ConnectionLostError:
            self._drop(client)

    def _drop(self, client: int) -> None:
        stream = self._streams.pop(client)
        self._selector.unregister(stream)
        stream.close()
        self.node.kernel.client_closed(client, self._tick)
        self.node.kernel.host_outbox.clear()
        with self._changed:
            self.closed.append(client)
            self._changed.notify_all()

    def _answer(self, client: int, stream: Stream, message: Any) -> None:
        instead = self.before(client, message)
        if isinstance(instead, bytes):
            if not instead:
                raise ConnectionLostError("the test wants it so")
            stream._queue(instead)
        elif instead is not None:
            for answer in instead:
                stream.send(encode(answer))
        elif isinstance(message, Netqasm):
            self._tick += 1
            self.node.kernel.host_message(client, message.request, message.raw, self._tick)
            self._run_kernel()
        else:
            stream.send(encode(self._known(message)))

    def _run_kernel(self) -> None:
        for _ in range(10_000):
            self._tick += 1
            self.node.step(self._tick)
            for reply in self.node.replies.values():
                if reply.client in self._streams:
                    self._streams[reply.client].send(encode(reply_of(reply)))
            self.node.replies.clear()
            if self.node.due() is None:
                return

    def _known(self, message: Any) -> Message:
        match message:
            case Hello():
                return self.welcome()
            case Ping(nonce):
                return Pong(nonce)
            case GetStatistics(request):
                return Statistics(
                    request, {"kernel": {"processes": len(self.node.kernel.processes)}}
                )
            case ListProcesses(request):
                return ProcessList(request, tuple(self._processes()))
            case Register(request) | Cancel(request) | Subscribe(request):
                return Reply(request)
        raise AssertionError(message)

    def _processes(self) -> list[ProcessInfo]:
        return [
            ProcessInfo(
                process.pid,
                process.owner[0],
                process.owner[1],
                process.state.name,
                process.priority,
                len(process.pending),
                None,
                (),
                0,
            )
            for process in self.node.kernel.processes.values()
        ]

    def welcome(self, **changes: Any) -> Welcome:
        """What it says of itself."""
        fields: dict[str, Any] = {
            "version": PROTOCOL_VERSION,
            "server": "fake",
            "node_name": self._name,
            "node_id": self._node_id,
            "incarnation": 1,
            "flavour": self._flavour.value,
            "device": DeviceInfo("fake", (0,), (), (), 10_000, 1),
            "limits": self.limits,
            "idle_timeout_s": self._idle_timeout_s,
        }
        return Welcome(**(fields | changes))


def connected(address: Address) -> socket.socket:
    """A plain socket to an address, for what no proper client would say."""
    family, place = address.resolve()
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(DEADLINE_S)
    connection.connect(place)
    return connection
