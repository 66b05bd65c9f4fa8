"""Every error the project raises, grouped by who has to act on it.

The four groups are the first thing a handler wants to know:

* `CallerError`: the program or the user asked for something that cannot be done;
* `PeerError`: another node broke the protocol or did not answer;
* `DeviceError`: the quantum device failed or answered nonsense;
* `ConfigurationError`: a file that somebody wrote is wrong.

A message says what was wrong, where, and what to do about it.
"""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """The error codes of NetQASM's `ErrorMessage` (netqasm.backend.messages)."""

    GENERAL = 0
    NO_QUBIT = 1
    UNSUPPORTED = 2


class QNodeOSError(Exception):
    """Base of all errors raised by this project."""

    code = ErrorCode.GENERAL


# --- the caller ---------------------------------------------------------------------


class CallerError(QNodeOSError):
    """The program, or whoever called us, erred."""


class MalformedMessageError(CallerError):
    """A host message is truncated, oversized or of an unknown type."""


class MalformedSubroutineError(CallerError):
    """The bytes of a subroutine do not decode: truncated, unknown opcode, bad operand."""


class WrongFlavourError(MalformedSubroutineError):
    """An instruction belongs to a NetQASM flavour this node does not speak."""

    code = ErrorCode.UNSUPPORTED


class UnsupportedInstructionError(CallerError):
    """The device of this node cannot do what the instruction asks (gate, angle, qubit)."""

    code = ErrorCode.UNSUPPORTED


class ExecutionError(CallerError):
    """A subroutine did something illegal while it ran."""


class ArrayAccessError(ExecutionError):
    """An array does not exist, an index is outside it, or an undefined entry was read."""


class ArithmeticFaultError(ExecutionError):
    """Division by zero, or a modulus that is not positive."""


class QubitAccessError(ExecutionError):
    """A virtual qubit is not allocated, or already is."""


class NoQubitError(ExecutionError):
    """More qubits were asked for than the process or the device may have."""

    code = ErrorCode.NO_QUBIT


class InstructionBudgetError(ExecutionError):
    """An activation ran more instructions than allowed: almost always an endless loop."""


class DeadlockError(ExecutionError):
    """A subroutine waits for something that nothing pending can bring."""


class EntanglementRequestError(CallerError):
    """An entanglement request is malformed or names an unknown node or ER socket."""


class UnreachableFidelityError(EntanglementRequestError):
    """A program wants pairs of a higher fidelity than the link or route is estimated to give."""

    code = ErrorCode.UNSUPPORTED


class EntanglementTimeoutError(EntanglementRequestError):
    """An entanglement request was not served in its time."""


class UnknownProcessError(CallerError):
    """A message names a process that does not exist or has ended."""


class UnknownSubroutineError(CallerError):
    """A request names a subroutine that is not there: never sent, done, or another's."""


class CancelledError(CallerError):
    """The subroutine was cancelled by whoever sent it."""


class LimitError(CallerError):
    """A bound was reached; the message names it."""


class SubroutineFailedError(CallerError):
    """The QNPU reports that a request of the program failed.

    Args:
        kind: name of the error at the QNPU (a class of this module).
        text: its message.
        subroutine: serial number of the subroutine, if it was one.
        pc: index of the instruction at fault, if it is known.
    """

    def __init__(self, kind: str, text: str, subroutine: int | None, pc: int | None) -> None:
        self.kind = kind
        self.subroutine = subroutine
        self.pc = pc
        places = []
        if subroutine is not None:
            places.append(f"subroutine {subroutine}")
        if pc is not None:
            places.append(f"instruction {pc}")
        place = f" ({', '.join(places)})" if places else ""
        super().__init__(f"{kind}: {text}{place}")


class StalledProgramsError(CallerError):
    """All programs that are left wait for something that nothing can bring."""


class ProgramError(CallerError):
    """A program on the CNPU raised an exception; the cause is chained."""


class ProgramStoppedError(CallerError):
    """A program was stopped from outside while it waited: Ctrl-C, or its time is up."""


class MalformedTraceError(CallerError):
    """A trace file does not follow the format: bad header, column, number or length."""


class IncompleteTraceError(CallerError):
    """A trace lacks events an analysis needs: the recorder dropped some, or counts differ."""


class InsufficientDataError(CallerError):
    """Measured counts cannot be analysed: none, inconsistent, or a singular readout."""


class ResultStorageError(CallerError):
    """Results cannot be stored, for instance because the disk is full."""


class ResultsNotWrittenError(CallerError):
    """Results cannot be written: no space, no permission; says what is kept all the same."""


class ChildProcessFailedError(CallerError):
    """A process that was started died, or was not ready in time; with its last words."""


# --- the peer -----------------------------------------------------------------------


class PeerError(QNodeOSError):
    """Another node broke the protocol."""


class PeerProtocolError(PeerError):
    """A message from a peer makes no sense in the state we are in."""


class PeerRefusedError(PeerError):
    """A node or controller is not who it should be, or does not want to talk to us."""


class TickMismatchError(PeerError):
    """The device of a node does not count the same ticks as those of the others."""


class UncertainTickError(PeerError):
    """A node's tick could not be read well enough to relate it to those of others."""


class PeerLostError(PeerError):
    """The connection to a neighbour ended, and with it what both nodes had agreed."""


class ConnectionLostError(PeerError):
    """A connection to another process broke, was closed, or cannot be made."""


class SlowReaderError(PeerError):
    """The other end of a connection does not read what it is sent."""


class UntrustedPeerError(PeerError):
    """The other end of a connection has not shown a certificate that is trusted."""


class QnpuUnavailableError(ConnectionLostError):
    """The QNPU service cannot be reached, ended the connection, or shows no sign of life."""


class QnpuRefusedError(QnpuUnavailableError):
    """The QNPU service does not want this connection, and says why.

    Args:
        message: what it said.
        kind: name of the error at the QNPU (a class of this module).
    """

    def __init__(self, message: str, kind: str) -> None:
        self.kind = kind
        super().__init__(f"{message} ({kind})")


class ApplicationLostError(ConnectionLostError):
    """The CNPU process that runs the other end of a classical socket is gone, or never came."""


# --- the device ---------------------------------------------------------------------


class DeviceError(QNodeOSError):
    """The QDevice failed, or answered something that its contract does not allow."""


class DeviceFailureError(DeviceError):
    """The QDevice reported a failure outcome for an instruction."""


class FrameError(DeviceError):
    """A frame to or from the QDevice is damaged or cannot be encoded."""


class ChannelError(DeviceError):
    """The shared-memory channel to a lab is missing, damaged, full or taken by another."""


# --- the configuration --------------------------------------------------------------


class ConfigurationError(QNodeOSError):
    """A configuration file is wrong; names the file, line and field where known.

    Args:
        message: what is wrong and what to do.
        file: path of the file, as the user gave it.
        line: line in the file, counted from 1.
        field: dotted path of the field.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.file = file
        self.line = line
        self.field = field
        place = ":".join(str(part) for part in (file, line) if part is not None)
        parts = [part for part in (place, field, message) if part]
        super().__init__(": ".join(parts))
