"""The FPGA pulse sequencer of a trapped-ion node: its program memory and its state.

The sequencer executes `sequences.sequencer_isa`; what commands it in operation are its trigger
inputs. This driver loads the program and verifies it, starts and stops it, and says how it is.

No public source describes such a line. Assumed: lines of text over a TCP socket,

    ID?                       QSEQ <version> <size of the program memory>
    ERASE                     OK; the program memory is empty
    LOAD <address> <word>...  OK; up to 32 words, the first of them behind the last one loaded
    DUMP <address> <number>   the words, up to 32
    SIZE?                     number of words loaded
    RUN                       OK; begins at address 0
    STOP                      OK; all outputs are low
    STATE?                    EMPTY, STOPPED, RUNNING, HALTED or FAULT; the address; the reason
    OUT?                      the 64 outputs
    ROSE?                     those that rose since this was last asked
    INPUT <value>             OK; trigger inputs that look high whatever their lines are
    INPUT?                    that value
    anything else             ERR and the reason; so are ERASE and LOAD while a program runs

Words, outputs and inputs are hexadecimal without prefix, other numbers decimal. Not verified on
hardware.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyvisa
from qcodes.instrument import VisaInstrument
from qcodes.parameters import Parameter
from qcodes.validators import Ints

from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentInUse,
    InstrumentNotReady,
)
from instruments.ownership import Ownership
from instruments.resources import open_resource
from sequences.errors import SequenceError
from sequences.ion import TRIGGER_CODE_BITS, TRIGGER_STROBE, TtlLine
from sequences.sequencer_assembler import SequencerProgram
from sequences.sequencer_isa import MAX_WORDS, TRIGGER_INPUTS, decode

MODEL: Final = "QSEQ"
VERSION: Final = 1
WORDS_PER_LINE: Final = 32
DEFAULT_TIMEOUT_S: Final = 1.0
"""Longest time that an operation of the trapped-ion program may take when it is triggered here."""
MAX_POLLS: Final = 100_000

_HEX: Final = re.compile(r"[0-9a-fA-F]{1,16}")
_DECIMAL: Final = re.compile(r"[0-9]{1,9}")


class SequencerState(StrEnum):
    """What the sequencer is doing."""

    EMPTY = "EMPTY"
    STOPPED = "STOPPED"
    RUNNING = "RUNNING"
    HALTED = "HALTED"
    FAULT = "FAULT"


class SequencerStatus(NamedTuple):
    """The sequencer's answer about itself.

    Attributes:
        state: what it is doing.
        address: of the word that is next, or that it failed at.
        reason: of a fault.
    """

    state: SequencerState
    address: int
    reason: str


class PulseSequencer(VisaInstrument):
    """The pulse sequencer.

    Args:
        name: of the QCoDeS instrument.
        address: of the socket, such as "TCPIP::192.168.0.220::7000::SOCKET".
        resource: an opened pyvisa resource instead of the one at that address, or what behaves
            like one; this object closes it.
        lock_directory: see `Ownership`.
        monotonic: clock of `trigger`'s timeout, in seconds.
        **kwargs: for `qcodes.instrument.VisaInstrument`.

    Attributes:
        state: of `SequencerState`.
        program_size: words loaded.
        program_checksum: CRC-32 of the words that were loaded and verified, as eight hexadecimal
            digits; empty if none were.
        outputs: the 64 outputs.
        inputs: trigger inputs that look high whatever their lines are; 0 in operation.

    Raises:
        InstrumentInUse: it is open already on this computer.
        InstrumentUnavailable: there is no such socket.
        DeviceRefused: nothing answers there.
        IncompatibleInstrument: it is something else, or of another version.
    """

    default_terminator = "\n"

    def __init__(
        self,
        name: str,
        address: str,
        *,
        resource: Any = None,
        lock_directory: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        **kwargs: Any,
    ) -> None:
        if self.exist(name):
            raise InstrumentInUse(f"there is a QCoDeS instrument {name!r} already; close it first")
        self._ownership = Ownership(f"sequencer-{address}", lock_directory)
        self._monotonic = monotonic
        self._checksum = ""
        try:
            line = open_resource(address) if resource is None else resource
            try:
                super().__init__(name, resource=line, **kwargs)
                self._memory_words = self._check_identity(address)
                self._add_parameters()
            except BaseException:
                line.close()
                raise
        except BaseException:
            self._ownership.release()
            raise

    def _add_parameters(self) -> None:
        self.state: Parameter = self.add_parameter(
            "state", get_cmd=lambda: self.status().state.value, docstring="what it is doing"
        )
        self.program_size: Parameter = self.add_parameter(
            "program_size", get_cmd=lambda: self._decimal("SIZE?"), docstring="words loaded"
        )
        self.program_checksum: Parameter = self.add_parameter(
            "program_checksum",
            get_cmd=lambda: self._checksum,
            docstring="CRC-32 of the program loaded and verified",
        )
        self.outputs: Parameter = self.add_parameter(
            "outputs", get_cmd=lambda: self._hexadecimal("OUT?"), docstring="the 64 outputs"
        )
        self.inputs: Parameter = self.add_parameter(
            "inputs",
            get_cmd=lambda: self._hexadecimal("INPUT?"),
            set_cmd=lambda value: self._command(f"INPUT {value:x}"),
            vals=Ints(0, (1 << TRIGGER_INPUTS) - 1),
            docstring="trigger inputs held high by software",
        )

    # --- program ----------------------------------------------------------------------

    def load(self, program: SequencerProgram) -> None:
        """Stop the sequencer, replace its program, and verify every word of it.

        Raises:
            ConfigurationRefused: the program is empty, too long, or has a word that is no
                instruction; nothing was changed.
            DeviceRefused: the sequencer refuses, does not answer, or has other words afterwards;
                it then has no program that this driver would start.
        """
        words = program.words
        if not 0 < len(words) <= self._memory_words:
            raise ConfigurationRefused(
                f"{self.name}: a program of {len(words)} words; it must have 1 to "
                f"{self._memory_words}"
            )
        for address, word in enumerate(words):
            try:
                decode(word)
            except SequenceError as error:
                raise ConfigurationRefused(f"{self.name}: word {address}: {error}") from error
        self.stop()
        self._checksum = ""
        self._command("ERASE")
        for address, some in _lines(words):
            self._command(f"LOAD {address} {' '.join(f'{word:08x}' for word in some)}")
        self._verify(words)
        self._checksum = f"{zlib.crc32(b''.join(word.to_bytes(4) for word in words)):08x}"

    def _verify(self, words: Sequence[int]) -> None:
        size = self._decimal("SIZE?")
        if size != len(words):
            raise DeviceRefused(f"{self.name} has {size} words after {len(words)} were loaded")
        for address, some in _lines(words):
            answer = self._exchange(f"DUMP {address} {len(some)}")
            found = [self._number(text, answer) for text in answer.split(" ")]
            if len(found) != len(some):
                raise DeviceRefused(f"{self.name} answers {answer!r}, not {len(some)} words")
            for offset, (read, word) in enumerate(zip(found, some, strict=True)):
                if read != word:
                    raise DeviceRefused(
                        f"{self.name} has {read:08x} at address {address + offset}, where "
                        f"{word:08x} was loaded; load again, and check the line"
                    )

    # --- execution --------------------------------------------------------------------

    def start(self) -> None:
        """Start the program at address 0.

        Raises:
            InstrumentNotReady: no program was loaded by this driver and found right.
            DeviceRefused: it refuses, does not answer, or does not run afterwards.
        """
        if not self._checksum:
            raise InstrumentNotReady(f"{self.name} has no verified program; load one first")
        self._command("RUN")
        status = self.status()
        if status.state not in (SequencerState.RUNNING, SequencerState.HALTED):
            raise DeviceRefused(
                f"{self.name} is {status.state.value} at address {status.address} after its start"
                f"{': ' if status.reason else ''}{status.reason}"
            )

    def stop(self) -> None:
        """Stop the program and take all outputs low.

        Raises:
            DeviceRefused: it refuses or does not answer.
        """
        self._command("STOP")

    def status(self) -> SequencerStatus:
        """What the sequencer is doing.

        Raises:
            DeviceRefused: it does not answer, or not in these terms.
        """
        answer = self._exchange("STATE?")
        state, address, reason = (*answer.split(" ", 2), "", "")[:3]
        if state not in SequencerState.__members__ or not _DECIMAL.fullmatch(address):
            raise DeviceRefused(f"{self.name} answers {answer!r} for its state")
        return SequencerStatus(SequencerState(state), int(address), reason)

    def trigger(self, code: int, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Have the trapped-ion program execute a code, as its trigger inputs would.

        For setting up and for tests; the lines of whoever commands the sequencer must be low.

        Args:
            code: of `sequences.ion.IonOperation`.
            timeout_s: for it to be done.

        Raises:
            InstrumentNotReady: no program runs, or it is busy.
            ConfigurationRefused: there is no such code on `TRIGGER_CODE_BITS` lines.
            DeviceRefused: the program has no subroutine for it, or is not done in time.
        """
        if not 0 <= code < 1 << TRIGGER_CODE_BITS:
            raise ConfigurationRefused(f"{self.name}: there is no code {code}")
        status = self.status()
        if status.state is not SequencerState.RUNNING or self._is_busy():
            raise InstrumentNotReady(
                f"{self.name} takes no code: it is {status.state.value}, outputs "
                f"{self.outputs.get():#x}"
            )
        self._hexadecimal("ROSE?")
        try:
            self.inputs(code)
            self.inputs(code | 1 << TRIGGER_STROBE)
            rose = self._await_end(code, timeout_s)
        finally:
            self.inputs(0)
        if rose & TtlLine.ERROR.mask:
            raise DeviceRefused(f"{self.name} has no subroutine for code {code}")
        self._wait(lambda: not self._is_busy(), f"end code {code}", timeout_s)

    def _await_end(self, code: int, timeout_s: float) -> int:
        rose = 0

        def ended() -> bool:
            nonlocal rose
            rose |= self._hexadecimal("ROSE?")
            return bool(rose & (TtlLine.DONE.mask | TtlLine.ERROR.mask))

        self._wait(ended, f"execute code {code}", timeout_s)
        return rose

    def _wait(self, reached: Callable[[], bool], what: str, timeout_s: float) -> None:
        until = self._monotonic() + timeout_s
        for _ in range(MAX_POLLS):
            if reached():
                return
            if self._monotonic() >= until:
                break
        status = self.status()
        raise DeviceRefused(
            f"{self.name} does not {what} within {timeout_s} s: it is {status.state.value} at "
            f"address {status.address} {status.reason}".rstrip()
        )

    def _is_busy(self) -> bool:
        return bool(self.outputs.get() & TtlLine.BUSY.mask)

    def close(self) -> None:
        """Close the instrument; a program that runs goes on."""
        # QCoDeS empties the object when it closes it, and may close it twice.
        ownership: Ownership | None = self.__dict__.get("_ownership")
        super().close()
        if ownership is not None:
            ownership.release()

    def get_idn(self) -> dict[str, str | None]:
        """What the sequencer says about itself."""
        version = self._exchange("ID?").split(" ")[1]
        return {"vendor": None, "model": MODEL, "serial": None, "firmware": version}

    # --- line -------------------------------------------------------------------------

    def _command(self, line: str) -> None:
        answer = self._exchange(line)
        if answer != "OK":
            raise DeviceRefused(f"{self.name} answers {answer!r} to {_shortened(line)!r}, not OK")

    def _decimal(self, line: str) -> int:
        answer = self._exchange(line)
        if not _DECIMAL.fullmatch(answer):
            raise DeviceRefused(f"{self.name} answers {answer!r} to {line!r}, no number")
        return int(answer)

    def _hexadecimal(self, line: str) -> int:
        answer = self._exchange(line)
        return self._number(answer, answer)

    def _number(self, text: str, answer: str) -> int:
        if not _HEX.fullmatch(text):
            raise DeviceRefused(f"{self.name} answers {answer!r}, where hexadecimal is due")
        return int(text, 16)

    def _exchange(self, line: str) -> str:
        try:
            answer = str(self.visa_handle.query(line)).strip()
        except (pyvisa.VisaIOError, OSError) as error:
            raise DeviceRefused(
                f"{self.name} does not answer {_shortened(line)!r}: {error}; check its power and "
                "its network cable"
            ) from error
        if answer.startswith("ERR"):
            raise DeviceRefused(f"{self.name} refuses {_shortened(line)!r}: {answer}")
        return answer

    def _check_identity(self, address: str) -> int:
        answer = self._exchange("ID?")
        match = re.fullmatch(rf"{MODEL} ([0-9]{{1,6}}) ([0-9]{{1,9}})", answer)
        if not match:
            raise IncompatibleInstrument(
                f"{self.name}: what answers {answer!r} at {address} is no pulse sequencer; correct "
                "the address"
            )
        if int(match[1]) != VERSION:
            raise IncompatibleInstrument(
                f"{self.name}: the sequencer at {address} has version {match[1]}, this driver "
                f"knows version {VERSION}"
            )
        return min(int(match[2]), MAX_WORDS)


def _lines(words: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """Addresses and words of the lines that a program is sent in."""
    for address in range(0, len(words), WORDS_PER_LINE):
        yield address, words[address : address + WORDS_PER_LINE]


def _shortened(line: str, length: int = 40) -> str:
    return line if len(line) <= length else f"{line[:length]}..."
