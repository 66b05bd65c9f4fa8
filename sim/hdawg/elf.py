"""What the vendor's compiler puts in an ELF file for one AWG core.

Sections used, as zhinst-core 26.7 writes them: `.asm`, the listing, one instruction per
line; `.c`, the SeqC source; `.waveforms`, JSON whose list position is the wave index;
`.wf_NAME`, the data of a waveform (without bits for a placeholder); `.wavemem`, how much of
the waveform memory is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray

MAX_INSTRUCTIONS: Final = 16_384
"""The instruction memory of a core (limit of the vendor's compiler)."""

MAX_ELF_BYTES: Final = 1 << 30

_LINE: Final = re.compile(
    r"^\s*(?P<labels>(?:\w+\s*:\s*)*)(?P<opcode>\w+)\s*(?P<operands>[^:]*?)\s*$"
)


class MalformedElf(ValueError):
    """A file that is not the compiler's output for an AWG core."""


@dataclass(frozen=True)
class Instruction:
    """One line of the listing.

    Attributes:
        line: its number, from 1.
        opcode: mnemonic.
        operands: registers, immediate numbers or labels, as written.
    """

    line: int
    opcode: str
    operands: tuple[str, ...]

    def __str__(self) -> str:
        return f"line {self.line}: {self.opcode} {', '.join(self.operands)}".rstrip()


@dataclass(frozen=True)
class WaveSlot:
    """What the program says of one wave index.

    Attributes:
        n_samples: length.
        n_channels: 1 or 2.
        has_markers: whether a marker word follows the values of each sample.
        is_used: False for an index that only fills the list.
        data: 16-bit words if the program brings them, None for a placeholder.
    """

    n_samples: int
    n_channels: int
    has_markers: bool
    is_used: bool
    data: NDArray[np.uint16] | None

    @property
    def n_words(self) -> int:
        """16-bit words that fill the slot."""
        return self.n_samples * (self.n_channels + self.has_markers)


@dataclass(frozen=True)
class CompiledProgram:
    """The content of one file.

    Attributes:
        source: SeqC.
        listing: text of the assembly listing.
        instructions: the same, line by line.
        labels: name -> index of the instruction it stands before.
        slots: by wave index.
        descriptors: the JSON text of the wave slots.
        wave_memory_fraction: used of the waveform memory, above 1 if it does not fit.
    """

    source: str
    listing: str
    instructions: tuple[Instruction, ...]
    labels: Mapping[str, int]
    slots: tuple[WaveSlot, ...]
    descriptors: str
    wave_memory_fraction: float


def read_elf(data: bytes) -> CompiledProgram:
    """Read a compiled program.

    Raises:
        MalformedElf: it is not one, or exceeds the instruction memory.
    """
    if len(data) > MAX_ELF_BYTES:
        raise MalformedElf(f"{len(data)} bytes are more than the {MAX_ELF_BYTES} allowed")
    try:
        sections = {
            section.name: section.data()
            for section in ELFFile(BytesIO(data)).iter_sections()
            if section.name and section["sh_type"] != "SHT_NOBITS"
        }
        listing = _text(sections, ".asm")
        descriptors = _text(sections, ".waveforms")
        # The compiler writes an empty string for the list if there are no waveforms.
        described = json.loads(descriptors)["waveforms"] or []
        slots = tuple(_slot(entry, sections) for entry in described)
        memory = float(json.loads(_text(sections, ".wavemem"))["fpgaMemoryUsed"])
    except (ELFError, KeyError, TypeError, ValueError) as error:
        raise MalformedElf(f"not a compiled sequencer program: {error!r}") from error
    instructions, labels = read_listing(listing)
    return CompiledProgram(
        _text(sections, ".c"), listing, instructions, labels, slots, descriptors, memory
    )


def read_listing(listing: str) -> tuple[tuple[Instruction, ...], dict[str, int]]:
    """Split a listing into instructions and labels.

    Raises:
        MalformedElf: a line is no instruction, or there are too many.
    """
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for number, text in enumerate(listing.splitlines(), start=1):
        if not text.strip():
            continue
        match = _LINE.match(text)
        if match is None:
            raise MalformedElf(f"line {number} of the listing is no instruction: {text!r}")
        # Several, where one loop begins with another.
        for label in re.findall(r"\w+", match["labels"]):
            labels[label] = len(instructions)
        operands = tuple(part.strip() for part in match["operands"].split(",") if part.strip())
        instructions.append(Instruction(number, match["opcode"], operands))
    if len(instructions) > MAX_INSTRUCTIONS:
        raise MalformedElf(
            f"{len(instructions)} instructions exceed the memory of {MAX_INSTRUCTIONS}"
        )
    return tuple(instructions), labels


def _text(sections: Mapping[str, bytes], name: str) -> str:
    return sections[name].rstrip(b"\0").decode()


def _slot(entry: Mapping[str, Any], sections: Mapping[str, bytes]) -> WaveSlot:
    raw = sections.get(f".wf_{entry['name']}")
    return WaveSlot(
        n_samples=int(entry["length"]),
        n_channels=int(entry["channels"]),
        has_markers=any(int(bits) for bits in entry["marker_bits"].split(";")),
        is_used=int(entry["play_config"]) != 0,
        data=None if raw is None else np.frombuffer(raw, "<u2").astype(np.uint16),
    )
