"""Physical instructions: the words the QNPU sends to the QDevice.

A word has 20 bits. Its low 11 bits are those of the published system, so for qubit 0 the
words are identical to the published ones (X180 is ``16 << 4 | 2``):

    bit   0..3   opcode
    bit   4..11  argument  (rotations: axis * 32 + n, n in units of pi/16; ENT: the link)
    bit  12..15  qubit     (physical address)
    bit  16..19  other     (second qubit of TQG, MOV, SWP, ESW; 1 on PMG: append; on SQG how
                            often the unit of the angle, pi/16, is halved)

Source of the codes: the analysis library published with the dataset of Delle Donne et
al., Nature 639, 321 (2025). The two qubit fields and the finer angles are ours: with 0 halvings
a word is the published one.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Final, NamedTuple

WORD_BITS: Final = 20
ANGLE_STEPS: Final = 32
"""Rotation angles are n * 2 pi / ANGLE_STEPS, that is n * pi/16."""
MAX_QUBIT: Final = 15
MAX_ARGUMENT: Final = 255
MAX_HALVINGS: Final = 15
"""The finest unit of an angle is pi/16 / 2**MAX_HALVINGS, 6 microradians."""


class Opcode(IntEnum):
    """What the QDevice is asked to do."""

    NOP = 0
    INI = 1
    SQG = 2
    TQG = 3
    MSR = 4
    ENT = 5
    ENM = 6
    PMG = 7
    MOV = 8
    SWP = 9
    ESW = 10

    __hash__ = int.__hash__  # Enum's own hashes the name, in Python, on every look-up


class Axis(IntEnum):
    """Rotation axis of SQG, TQG and PMG."""

    X = 0
    Y = 1
    Z = 2


class PhysicalInstruction(NamedTuple):
    """One physical instruction. Build it with the functions below, which check bounds."""

    opcode: Opcode
    argument: int = 0
    qubit: int = 0
    other: int = 0

    @property
    def word(self) -> int:
        """The 20-bit word that travels in a frame."""
        return self.opcode | self.argument << 4 | self.qubit << 12 | self.other << 16

    @property
    def axis(self) -> Axis:
        """Rotation axis (SQG, TQG, PMG)."""
        return Axis(self.argument >> 5)

    @property
    def steps(self) -> int:
        """Rotation angle in units of pi/16, 0..31 (TQG, PMG; SQG: halved `halvings` times)."""
        return self.argument & 31

    @property
    def halvings(self) -> int:
        """How often the unit of an SQG's angle is halved: it is pi/16 / 2**halvings."""
        return self.other if self.opcode is Opcode.SQG else 0


NOP: Final = PhysicalInstruction(Opcode.NOP)


def decode_word(word: int) -> PhysicalInstruction | None:
    """The instruction a 20-bit word stands for, or None if its opcode is unknown."""
    code = word & 0xF
    if code > Opcode.ESW:
        return None
    return PhysicalInstruction(Opcode(code), word >> 4 & 0xFF, word >> 12 & 0xF, word >> 16 & 0xF)


def _check_qubits(*qubits: int) -> None:
    for qubit in qubits:
        if not 0 <= qubit <= MAX_QUBIT:
            raise ValueError(f"physical qubit {qubit} is outside 0..{MAX_QUBIT}")


def _rotation(axis: Axis, steps: int) -> int:
    return axis * ANGLE_STEPS + steps % ANGLE_STEPS


@cache
def ini(qubit: int = 0) -> PhysicalInstruction:
    """Initialise a qubit in |0>."""
    _check_qubits(qubit)
    return PhysicalInstruction(Opcode.INI, 0, qubit)


@cache
def sqg(axis: Axis, steps: int, qubit: int = 0, halvings: int = 0) -> PhysicalInstruction:
    """Rotate a qubit about an axis by ``steps`` * pi/16 / 2**``halvings``.

    Steps are taken modulo 32, so only angles below 2 pi / 2**halvings can be said.
    """
    _check_qubits(qubit)
    if not 0 <= halvings <= MAX_HALVINGS:
        raise ValueError(f"halvings of an angle must lie in 0..{MAX_HALVINGS}, not {halvings}")
    return PhysicalInstruction(Opcode.SQG, _rotation(axis, steps), qubit, halvings)


@cache
def tqg(axis: Axis, steps: int, qubit: int, other: int) -> PhysicalInstruction:
    """Rotate ``other`` by +-angle, sign set by ``qubit`` (|0>: +, |1>: -), as NV does."""
    _check_qubits(qubit, other)
    return PhysicalInstruction(Opcode.TQG, _rotation(axis, steps), qubit, other)


@cache
def msr(qubit: int = 0) -> PhysicalInstruction:
    """Measure a qubit in the Z basis."""
    _check_qubits(qubit)
    return PhysicalInstruction(Opcode.MSR, 0, qubit)


@cache
def ent(link: int = 0, qubit: int = 0) -> PhysicalInstruction:
    """One batch of entanglement attempts over a link; keep the qubit on success."""
    _check_qubits(qubit)
    if not 0 <= link <= MAX_ARGUMENT:
        raise ValueError(f"link {link} is outside 0..{MAX_ARGUMENT}")
    return PhysicalInstruction(Opcode.ENT, link, qubit)


@cache
def enm(link: int = 0, qubit: int = 0) -> PhysicalInstruction:
    """One batch of attempts; on success measure at once in the basis set by PMG."""
    _check_qubits(qubit)
    if not 0 <= link <= MAX_ARGUMENT:
        raise ValueError(f"link {link} is outside 0..{MAX_ARGUMENT}")
    return PhysicalInstruction(Opcode.ENM, link, qubit)


@cache
def pmg(axis: Axis, steps: int, qubit: int = 0, *, append: bool = False) -> PhysicalInstruction:
    """Set (or extend) the rotations done before the measurement of every later ENM.

    They stay until the next PMG without ``append``; a rotation of 0 steps means none.
    """
    _check_qubits(qubit)
    return PhysicalInstruction(Opcode.PMG, _rotation(axis, steps), qubit, int(append))


@cache
def mov(qubit: int, other: int) -> PhysicalInstruction:
    """Move the state of ``qubit`` to ``other``."""
    _check_qubits(qubit, other)
    return PhysicalInstruction(Opcode.MOV, 0, qubit, other)


@cache
def swp(qubit: int, other: int) -> PhysicalInstruction:
    """Swap the states of two qubits."""
    _check_qubits(qubit, other)
    return PhysicalInstruction(Opcode.SWP, 0, qubit, other)


@cache
def esw(qubit: int, other: int) -> PhysicalInstruction:
    """Entanglement swap: measure which Bell state two qubits are in; the outcome names it."""
    _check_qubits(qubit, other)
    return PhysicalInstruction(Opcode.ESW, 0, qubit, other)
