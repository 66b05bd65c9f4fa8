"""A serial line, in the place of pyvisa's."""

from __future__ import annotations

from typing import Any, Protocol


class LineDevice(Protocol):
    """What is at the other end of a line."""

    def answer(self, line: str) -> str:
        """What it sends back for a line."""
        ...


class SerialLine:
    """Takes the place of a pyvisa resource: give it to the driver as `resource=`.

    Attributes:
        session: None once it is closed.

    Args:
        device: at its other end.
        address: it pretends to have.
    """

    timeout: float | None = 1_000.0
    read_termination: str | None = None
    write_termination: str | None = None
    visalib: Any = None

    def __init__(self, device: LineDevice, address: str = "ASRL0::INSTR") -> None:
        self.resource_name = address
        self.session: int | None = 1
        self._device = device

    def query(self, message: str) -> str:
        """Send a line and receive the answer.

        Raises:
            OSError: the line was closed.
        """
        if self.session is None:
            raise OSError(f"{self.resource_name} is closed")
        return self._device.answer(message)

    def clear(self) -> None:
        """Nothing is ever left on the line."""

    def close(self) -> None:
        """Close the line; more than once does no harm."""
        self.session = None
