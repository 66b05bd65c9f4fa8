"""Classical sockets between applications, in the SDK's interface."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from math import ceil, inf
from typing import Any, Final, Protocol, runtime_checkable

from netqasm.sdk.classical_communication.broadcast_channel import BroadcastChannelBySockets
from netqasm.sdk.classical_communication.message import StructuredMessage
from netqasm.sdk.classical_communication.socket import Socket

from qnodeos.cnpu.host import find_host
from qnodeos.errors import LimitError, ProgramError

MAX_MESSAGE_CHARACTERS: Final = 1 << 20
_LOOK_S: Final = 0.001
"""How often a broadcast channel looks at its sockets (assumed)."""


class MessageService(Protocol):
    """What a socket needs of its CNPU; see `qnodeos.cnpu.host.ProgramHost`."""

    def open_socket(self, source: str, destination: str, socket_id: int) -> None:
        """An application will exchange messages with another."""
        ...

    def send(self, source: str, destination: str, socket_id: int, message: Any) -> None:
        """Send a message."""
        ...

    def receive(
        self,
        source: str,
        destination: str,
        socket_id: int,
        *,
        block: bool = True,
        timeout_s: float | None = None,
    ) -> Any:
        """Take the next message."""
        ...


@runtime_checkable
class AnyReceiver(Protocol):
    """A CNPU whose programs can wait for messages of several applications at once."""

    def receive_any(
        self,
        sources: Sequence[str],
        destination: str,
        socket_id: int,
        *,
        timeout_s: float | None = None,
    ) -> tuple[str, Any]:
        """Take the message that arrives first; raises TimeoutError if none does in time."""
        ...


class AppSocket(Socket):  # type: ignore[misc]
    """One end of a classical connection between two applications.

    Takes the arguments of the SDK's sockets. Both ends may be made in any order; messages
    wait for the receiver.
    """

    def __init__(
        self,
        app_name: str,
        remote_app_name: str,
        socket_id: int = 0,
        timeout: float | None = None,
        use_callbacks: bool = False,
        log_config: Any = None,
        *,
        host: MessageService | None = None,
    ) -> None:
        self._host: MessageService = host if host is not None else find_host()
        self._app_name = app_name
        self._remote_app_name = remote_app_name
        self._socket_id = socket_id
        self._timeout_s = timeout
        if use_callbacks:
            raise ProgramError(
                "this socket is asked to call back when a message arrives, which it cannot do; "
                "call recv instead"
            )
        self._host.open_socket(app_name, remote_app_name, socket_id)

    def send(self, msg: str) -> None:
        """Send a string.

        Raises:
            TypeError: it is not a string.
            LimitError: it is too long.
        """
        if not isinstance(msg, str):
            raise TypeError(f"a classical message is a string, not {type(msg).__name__}")
        if len(msg) > MAX_MESSAGE_CHARACTERS:
            raise LimitError(
                f"a classical message of {len(msg)} characters exceeds {MAX_MESSAGE_CHARACTERS}"
            )
        self._host.send(self._app_name, self._remote_app_name, self._socket_id, msg)

    def recv(
        self, block: bool = True, timeout: float | None = None, maxsize: int | None = None
    ) -> str:
        """Receive a string; raises RuntimeError if none is there or comes in time."""
        message = self._receive(block, timeout)
        if not isinstance(message, str):
            raise RuntimeError("the next message is structured; use recv_structured")
        return message

    def send_structured(self, msg: StructuredMessage) -> None:
        """Send a structured message."""
        self._host.send(self._app_name, self._remote_app_name, self._socket_id, msg)

    def recv_structured(
        self, block: bool = True, timeout: float | None = None, maxsize: int | None = None
    ) -> StructuredMessage:
        """Receive a structured message."""
        return self._receive(block, timeout)

    def send_silent(self, msg: str) -> None:
        """Send without logging, which we do not do anyway."""
        self.send(msg)

    def recv_silent(
        self, block: bool = True, timeout: float | None = None, maxsize: int | None = None
    ) -> str:
        """Receive without logging, which we do not do anyway."""
        return self.recv(block, timeout, maxsize)

    def _receive(self, block: bool, timeout: float | None) -> Any:
        return self._host.receive(
            self._remote_app_name,
            self._app_name,
            self._socket_id,
            block=block,
            timeout_s=timeout if timeout is not None else self._timeout_s,
        )


class AppBroadcastChannel(BroadcastChannelBySockets):  # type: ignore[misc]
    """One application's messages to and from several others, over a socket to each.

    Args:
        app_name: this application.
        remote_app_names: the others.
        options: of the sockets.
    """

    _socket_class = AppSocket

    def recv(self, block: bool = True, timeout: float | None = None) -> tuple[str, str]:
        """The next message of any of them.

        Args:
            block: False only looks.
            timeout: how long to wait, in seconds; None for ever.

        Returns:
            Who sent it, and the message.

        Raises:
            RuntimeError: none is there (``block`` False).
            TimeoutError: none came in time.
        """
        first = next(iter(self._sockets.values()))
        if block and isinstance(first._host, AnyReceiver):
            return first._host.receive_any(
                list(self._sockets), first._app_name, first._socket_id, timeout_s=timeout
            )
        looks = inf if timeout is None or not block else ceil(timeout / _LOOK_S)
        while True:
            for name, socket in self._sockets.items():
                with contextlib.suppress(RuntimeError):
                    return name, socket.recv(block=False)
            if not block:
                raise RuntimeError("no message was broadcast")
            if looks <= 0:
                raise TimeoutError(f"no message was broadcast within {timeout} s")
            looks -= 1
            # Wait at one of them for a moment, rather than look without pause.
            name, socket = next(iter(self._sockets.items()))
            with contextlib.suppress(RuntimeError):
                return name, socket.recv(timeout=_LOOK_S)
