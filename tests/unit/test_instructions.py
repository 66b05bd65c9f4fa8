"""Instruction words: the published codes, round trips, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.qdevice.instructions import (
    NOP,
    Axis,
    Opcode,
    decode_word,
    enm,
    ent,
    ini,
    mov,
    msr,
    pmg,
    sqg,
    swp,
    tqg,
)
from qnodeos.qdevice.outcomes import HERALDS, OUTCOME_OF_HERALD, BellState, Outcome

QUBITS = st.integers(0, 15)
AXES = st.sampled_from(list(Axis))
STEPS = st.integers(0, 31)
LINKS = st.integers(0, 255)
INSTRUCTIONS = st.one_of(
    st.just(NOP),
    st.builds(ini, QUBITS),
    st.builds(msr, QUBITS),
    st.builds(sqg, AXES, STEPS, QUBITS),
    st.builds(tqg, AXES, STEPS, QUBITS, QUBITS),
    st.builds(pmg, AXES, STEPS, QUBITS, append=st.booleans()),
    st.builds(ent, LINKS, QUBITS),
    st.builds(enm, LINKS, QUBITS),
    st.builds(mov, QUBITS, QUBITS),
    st.builds(swp, QUBITS, QUBITS),
)


@pytest.mark.parametrize(
    ("instruction", "word"),
    [
        (NOP, 0),
        (ini(), 1),
        (sqg(Axis.X, 8), 8 << 4 | 2),
        (sqg(Axis.X, 16), 16 << 4 | 2),
        (sqg(Axis.X, -8), 24 << 4 | 2),
        (sqg(Axis.Y, 8), 40 << 4 | 2),
        (sqg(Axis.Y, 16), 48 << 4 | 2),
        (sqg(Axis.Y, -8), 56 << 4 | 2),
        (msr(), 4),
        (ent(), 5),
        (enm(), 6),
    ],
)
def test_published_words(instruction, word):
    assert instruction.word == word


@given(INSTRUCTIONS)
def test_round_trip(instruction):
    assert 0 <= instruction.word < 2**20
    assert decode_word(instruction.word) == instruction


@given(st.integers(0, 2**20 - 1))
def test_every_word_decodes_or_has_an_unknown_opcode(word):
    instruction = decode_word(word)
    if word & 0xF > Opcode.ESW:
        assert instruction is None
    else:
        assert instruction is not None
        assert instruction.word == word


@given(AXES, STEPS, st.integers(-3, 3))
def test_rotations_are_reduced_modulo_a_turn(axis, steps, turns):
    instruction = sqg(axis, steps + 32 * turns)
    assert (instruction.axis, instruction.steps) == (axis, steps)


def test_fields_of_two_qubit_instructions():
    assert (tqg(Axis.Y, 3, 4, 5).qubit, tqg(Axis.Y, 3, 4, 5).other) == (4, 5)
    assert (mov(1, 2).qubit, mov(1, 2).other) == (1, 2)
    assert pmg(Axis.X, 8).other == 0
    assert pmg(Axis.X, 8, append=True).other == 1


@pytest.mark.parametrize(
    "build",
    [
        lambda: ini(16),
        lambda: msr(-1),
        lambda: sqg(Axis.X, 1, 16),
        lambda: tqg(Axis.X, 1, 0, 16),
        lambda: pmg(Axis.X, 1, 16),
        lambda: ent(256),
        lambda: ent(0, 16),
        lambda: enm(-1),
        lambda: enm(0, -1),
        lambda: mov(0, 16),
        lambda: swp(16, 0),
    ],
)
def test_what_does_not_fit_is_refused(build):
    with pytest.raises(ValueError, match="outside"):
        build()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("UNKNOWN_FAILURE", 0),
        ("HARDWARE_FAILURE", 1),
        ("UNSUPPORTED_REQUEST", 2),
        ("INVALID_QUBIT", 3),
        ("ENTANGLEMENT_FAILURE", 4),
        ("ENTANGLEMENT_SYNC_FAILURE", 5),
        ("SUCCESS_ZERO", 8),
        ("SUCCESS_PHI_MINUS", 9),
        ("SUCCESS_PSI_PLUS", 10),
        ("SUCCESS_PSI_MINUS", 11),
        ("SUCCESS_ONE", 12),
    ],
)
def test_published_outcomes(name, code):
    assert Outcome[name] == code
    assert Outcome[name].is_success == name.startswith("SUCCESS")


def test_heralds_name_every_bell_state_once():
    assert {OUTCOME_OF_HERALD[bell] for bell in BellState} == set(HERALDS)
    assert all(HERALDS[OUTCOME_OF_HERALD[bell]] is bell for bell in BellState)
