"""The line by which `instruments.pulse_sequencer` reaches the simulated sequencer."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any, Final

from instruments.pulse_sequencer import MODEL, VERSION, WORDS_PER_LINE
from sequences.sequencer_isa import MAX_WORDS, TRIGGER_INPUTS
from sim.ion.sequencer import WORD_BITS, CoreState, SequencerCore
from sim.ion.sequencer_thread import PulseSequencerFault

EXCHANGE_NS: Final = 100_000
"""How long a question and its answer take, if nobody else lets time pass (assumed)."""
MAX_LINE_CHARACTERS: Final = 400

_DECIMAL: Final = re.compile(r"[0-9]{1,9}")
_HEXADECIMAL: Final = re.compile(r"[0-9a-fA-F]{1,16}")


class _Refused(Exception):
    """What stands behind ERR."""


class SequencerLine:
    """Takes the place of a pyvisa resource: give it to the driver as `resource=`.

    Attributes:
        session: None once it is closed.

    Args:
        core: the sequencer at its other end.
        address: it pretends to have.
        pass_time: called with the ns that an exchange takes, before it is answered; None to let
            time pass for the sequencer alone. A laboratory with a clock of its own gives
            something else.
    """

    timeout: float | None = 1_000.0
    read_termination: str | None = None
    write_termination: str | None = None
    visalib: Any = None

    def __init__(
        self,
        core: SequencerCore,
        address: str = "TCPIP::127.0.0.1::7000::SOCKET",
        pass_time: Callable[[int], None] | None = None,
    ) -> None:
        self.resource_name = address
        self.session: int | None = 1
        self._core = core
        self._pass_time = pass_time or self._run_core
        self._rose = 0
        self._loaded: list[int] = list(core.words)
        core.on_ttl(self._note_rise)

    def query(self, message: str) -> str:
        """Send a line and receive the answer.

        Raises:
            OSError: the line was closed.
        """
        if self.session is None:
            raise OSError(f"{self.resource_name} is closed")
        with contextlib.suppress(PulseSequencerFault):
            self._pass_time(EXCHANGE_NS)
        try:
            return self._answer(message)
        except _Refused as refused:
            return f"ERR {refused}"

    def clear(self) -> None:
        """Nothing is ever left on the line."""

    def close(self) -> None:
        """Close the line; more than once does no harm."""
        self.session = None

    def _run_core(self, duration_ns: int) -> None:
        self._core.run_to(self._core.time_ns + duration_ns)

    def _note_rise(self, time_ns: int, before: int, after: int) -> None:
        self._rose |= after & ~before

    def _answer(self, line: str) -> str:
        if len(line) > MAX_LINE_CHARACTERS:
            raise _Refused("the line is too long")
        core = self._core
        match line.split(" "):
            case ["ID?"]:
                return f"{MODEL} {VERSION} {MAX_WORDS}"
            case ["ERASE"]:
                self._store([])
            case ["LOAD", address, *words]:
                self._load(_decimal(address), [_hexadecimal(word) for word in words])
            case ["DUMP", address, number]:
                return self._dump(_decimal(address), _decimal(number))
            case ["SIZE?"]:
                return str(len(self._loaded))
            case ["RUN"]:
                if not self._loaded:
                    raise _Refused("there is no program")
                if core.words != tuple(self._loaded):
                    core.load(self._loaded)
                core.start()
            case ["STOP"]:
                core.stop()
            case ["STATE?"]:
                return self._state()
            case ["OUT?"]:
                return f"{core.ttl:016x}"
            case ["ROSE?"]:
                rose, self._rose = self._rose, 0
                return f"{rose:016x}"
            case ["INPUT?"]:
                return f"{core.software_trigger:x}"
            case ["INPUT", value]:
                inputs = _hexadecimal(value)
                if inputs >= 1 << TRIGGER_INPUTS:
                    raise _Refused(f"there are {TRIGGER_INPUTS} inputs")
                core.set_software_trigger(inputs)
            case _:
                raise _Refused("unknown command")
        return "OK"

    def _store(self, words: list[int]) -> None:
        if self._core.state is CoreState.RUNNING:
            raise _Refused("a program runs; STOP it first")
        self._loaded = words
        self._core.load(())

    def _load(self, address: int, words: list[int]) -> None:
        if not 0 < len(words) <= WORDS_PER_LINE:
            raise _Refused(f"a line holds 1 to {WORDS_PER_LINE} words")
        if address != len(self._loaded):
            raise _Refused(f"the next address is {len(self._loaded)}")
        if address + len(words) > MAX_WORDS:
            raise _Refused(f"there is room for {MAX_WORDS} words")
        if any(word >= 1 << WORD_BITS for word in words):
            raise _Refused(f"a word has {WORD_BITS} bits")
        self._store([*self._loaded, *words])

    def _dump(self, address: int, number: int) -> str:
        if not 0 < number <= WORDS_PER_LINE or address + number > len(self._loaded):
            raise _Refused(f"there are {len(self._loaded)} words, and {WORDS_PER_LINE} in a line")
        return " ".join(f"{word:08x}" for word in self._loaded[address : address + number])

    def _state(self) -> str:
        core = self._core
        state = CoreState.STOPPED if self._loaded and not core.words else core.state
        return f"{state.name} {core.address} {core.fault}".strip()


def _decimal(text: str) -> int:
    if not _DECIMAL.fullmatch(text):
        raise _Refused("no decimal number")
    return int(text)


def _hexadecimal(text: str) -> int:
    if not _HEXADECIMAL.fullmatch(text):
        raise _Refused("no hexadecimal number")
    return int(text, 16)
