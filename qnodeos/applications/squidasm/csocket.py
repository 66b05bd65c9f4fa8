"""Classical sockets as SquidASM-style programs use them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from copy import deepcopy
from typing import Any, Final, TypeVar

from netqasm.sdk.classical_communication.message import StructuredMessage
from netqasm.sdk.classical_communication.socket import Socket

from qnodeos.cnpu.host import find_host
from qnodeos.cnpu.sockets import MAX_MESSAGE_CHARACTERS
from qnodeos.errors import LimitError, ProgramError

_SHOWN_CHARACTERS: Final = 60
"""Of a message, in an error."""
_Number = TypeVar("_Number", int, float)


class ClassicalSocket(Socket):  # type: ignore[misc]
    """One end of a classical connection between two programs.

    What is sent arrives as it is: a string as a string, a number as a number, a structured
    message as one. `send_int` and `send_float` send strings, and `recv_int` and `recv_float`
    read strings and numbers. All that wait are generators, for `yield from`.
    """

    def __init__(self, app_name: str, remote_app_name: str, socket_id: int = 0) -> None:
        self._host = find_host()
        self._app_name = app_name
        self._remote_app_name = remote_app_name
        self._socket_id = socket_id
        self._host.open_socket(app_name, remote_app_name, socket_id)

    @property
    def remote_app_name(self) -> str:
        """The peer."""
        return self._remote_app_name

    def send(self, msg: Any) -> None:
        """Send a message; does not wait.

        Raises:
            LimitError: a string is too long.
        """
        if isinstance(msg, str) and len(msg) > MAX_MESSAGE_CHARACTERS:
            raise LimitError(
                f"a classical message of {len(msg)} characters exceeds {MAX_MESSAGE_CHARACTERS}; "
                "send it in parts"
            )
        # A copy, for the sender may change its own before the message arrives.
        self._host.send(self._app_name, self._remote_app_name, self._socket_id, deepcopy(msg))

    def recv(
        self, block: bool = True, timeout: float | None = None, maxsize: int | None = None
    ) -> Generator[Any, None, Any]:
        """Take the next message, waiting for it.

        Raises:
            RuntimeError: none is there (``block`` False) or comes within the timeout (seconds).
        """
        yield from ()
        return self._host.receive(
            self._remote_app_name,
            self._app_name,
            self._socket_id,
            block=block,
            timeout_s=timeout,
        )

    def send_int(self, value: int) -> None:
        """Send a whole number, as a string."""
        self.send(str(value))

    def recv_int(self) -> Generator[Any, None, int]:
        """Take the next message, a whole number.

        Raises:
            ProgramError: it is none.
        """
        return self._read(int, (yield from self.recv()), "a whole number")

    def send_float(self, value: float) -> None:
        """Send a number, as a string."""
        self.send(str(value))

    def recv_float(self) -> Generator[Any, None, float]:
        """Take the next message, a number.

        Raises:
            ProgramError: it is none.
        """
        return self._read(float, (yield from self.recv()), "a number")

    def send_structured(self, msg: StructuredMessage) -> None:
        """Send a structured message."""
        self.send(msg)

    def recv_structured(self, **options: Any) -> Generator[Any, None, Any]:
        """Take the next message; the options are those of `recv`."""
        return (yield from self.recv(**options))

    def send_silent(self, msg: Any) -> None:
        """Send without logging, which is not done anyway."""
        self.send(msg)

    def recv_silent(self, **options: Any) -> Generator[Any, None, Any]:
        """Receive without logging, which is not done anyway."""
        return (yield from self.recv(**options))

    def _read(self, kind: Callable[[Any], _Number], message: Any, what: str) -> _Number:
        try:
            return kind(message)
        except (TypeError, ValueError):
            shown = repr(message)
            if len(shown) > _SHOWN_CHARACTERS:
                shown = shown[: _SHOWN_CHARACTERS - 3] + "..."
            raise ProgramError(
                f"{self._app_name} expects {what} from {self._remote_app_name}, and the next "
                f"message is {shown} ({type(message).__name__}); do the two programs send and "
                "receive in the same order?"
            ) from None
