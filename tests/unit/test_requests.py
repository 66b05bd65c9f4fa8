"""Entanglement requests and results, against netqasm's own enumerations and layouts."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netqasm import qlink_compat as qlink

from qnodeos.api.peer import EntanglementType
from qnodeos.errors import EntanglementRequestError
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import Axis
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu import requests
from qnodeos.qnpu.requests import (
    ARGUMENTS,
    BASIS_ROTATIONS,
    BASIS_X,
    BASIS_Y,
    BASIS_Z,
    BASIS_ZMINUSX,
    BASIS_ZPLUSX,
    RANDOM_BASES,
    RESULTS_PER_PAIR,
    PairResult,
    as_phi_plus,
    can_be_phi_plus,
    draw_basis,
    measured_basis,
    parse_create_arguments,
)
from tests.unit.kernel_device import BELL, PAULI, rotation

LIMITS = Limits(pairs_per_request=100)
ROTATION = st.tuples(st.sampled_from(Axis), st.integers(0, 31))


def parse(arguments: dict[int, int | None]):
    values: list[int | None] = [None] * ARGUMENTS
    for index, value in arguments.items():
        values[index] = value
    return parse_create_arguments(values, LIMITS)


# --- against netqasm ------------------------------------------------------------------


def test_the_codes_are_netqasms():
    assert {basis.name: basis.value for basis in qlink.Basis} == {
        name.removeprefix("BASIS_"): value
        for name, value in vars(requests).items()
        if name in ("BASIS_Z", "BASIS_X", "BASIS_Y", "BASIS_ZPLUSX", "BASIS_ZMINUSX")
    }
    assert {s.name: s.value for s in qlink.BellState} == {s.name: int(s) for s in BellState}
    members = {"NONE": "", "XZ": "XZ", "XYZ": "XYZ"}
    for code in qlink.RandomBasis:
        if code.name in members:
            names = [qlink.Basis(b).name for b in RANDOM_BASES[code.value]]
            assert sorted(names) == sorted(members[code.name])
    assert len(RANDOM_BASES) == len(qlink.RandomBasis)
    assert len(requests._TIME_UNIT_US) == len(qlink.TimeUnit)


def test_the_layouts_are_the_sdks():
    assert len(qlink.LinkLayerOKTypeK._fields) == RESULTS_PER_PAIR
    assert len(qlink.LinkLayerOKTypeM._fields) == RESULTS_PER_PAIR
    # The request without the node and the socket, which have registers of their own.
    assert len(qlink.LinkLayerCreate._fields) - 2 == ARGUMENTS
    fields = qlink.LinkLayerCreate._fields[2:]
    places = {name: fields.index(name) for name in ("type", "number", "time_unit", "max_time")}
    assert places == {"type": 0, "number": 1, "time_unit": 5, "max_time": 6}
    assert fields.index("random_basis_local") == 2
    assert fields.index("random_basis_remote") == 3
    assert fields.index("rotation_local_1") == 14
    assert fields.index("rotation_remote_1") == 17
    assert fields.index("rotation_axes_local") == 20
    assert fields.index("rotation_axes_remote") == 21


def test_the_results_of_a_pair_are_where_netqasm_looks_for_them():
    result = PairResult(11, 12, 13, 14, True, 15, BellState.PSI_MINUS)
    keep = qlink.LinkLayerOKTypeK(*result.keep(16))
    assert (keep.type, keep.create_id, keep.logical_qubit_id) == (0, 11, 16)
    assert (keep.directionality_flag, keep.sequence_number, keep.purpose_id) == (1, 12, 13)
    assert (keep.remote_node_id, keep.goodness, keep.bell_state) == (14, 15, 2)
    measured = qlink.LinkLayerOKTypeM(*result.measured(1, BASIS_Y))
    assert (measured.type, measured.create_id) == (1, 11)
    assert (measured.measurement_outcome, measured.measurement_basis) == (1, 2)
    assert (measured.directionality_flag, measured.sequence_number) == (1, 12)
    assert (measured.purpose_id, measured.remote_node_id) == (13, 14)
    assert (measured.goodness, measured.bell_state) == (15, 2)


# --- parsing --------------------------------------------------------------------------


def test_defaults():
    for values in ([], [None] * ARGUMENTS, [0] * ARGUMENTS):
        arguments = parse_create_arguments(values, LIMITS)
        assert arguments.kind is EntanglementType.KEEP
        assert arguments.pairs == 1
        assert arguments.max_time_us == 0
        assert arguments.local_rotations == arguments.remote_rotations == ()
        assert arguments.local_random_basis == arguments.remote_random_basis == 0


def test_everything_given():
    arguments = parse(
        {0: 1, 1: 7, 2: 1, 3: 2, 5: 1, 6: 3, 14: 8, 16: 40, 18: 4, 19: -1, 20: 2, 21: 1}
    )
    assert arguments.kind is EntanglementType.MEASURE
    assert arguments.pairs == 7
    assert (arguments.local_random_basis, arguments.remote_random_basis) == (1, 2)
    assert arguments.max_time_us == 3_000
    assert arguments.local_rotations == ((Axis.Z, 8), (Axis.Z, 8))
    assert arguments.remote_rotations == ((Axis.Z, 4), (Axis.Y, 31))


def test_the_arguments_the_sdk_never_fills():
    arguments = parse({2: 2, 3: 1, 4: 80, 7: 9, 8: 1, 9: 1, 10: 100, 11: 156, 12: 255})
    assert arguments.local_weights == (100, 156)
    assert arguments.remote_weights == (255, 0)
    assert arguments.min_fidelity_percent == 80
    assert arguments.priority == 9
    assert arguments.atomic
    assert arguments.consecutive


@pytest.mark.parametrize(
    ("code", "weights", "expected"),
    [
        (1, (1, 0), {BASIS_X: 1, BASIS_Z: 255}),
        (1, (200, 0), {BASIS_X: 200, BASIS_Z: 56}),
        (2, (100, 28), {BASIS_X: 100, BASIS_Y: 28, BASIS_Z: 128}),
        (2, (0, 28), {BASIS_Y: 28, BASIS_Z: 228}),
        (2, (156, 100), {BASIS_X: 156, BASIS_Y: 100}),
        (3, (255, 0), {BASIS_ZPLUSX: 255, BASIS_ZMINUSX: 1}),
    ],
)
def test_the_weights_are_units_of_a_256th(code, weights, expected):
    """Over every number that may be drawn."""
    drawn = Counter(draw_basis(code, weights, lambda below, n=n: n) for n in range(256))  # type: ignore[misc]
    assert drawn == expected


@pytest.mark.parametrize("code", [1, 2, 3])
def test_without_weights_all_bases_are_as_likely(code):
    bases = RANDOM_BASES[code]
    drawn = [draw_basis(code, (0, 0), lambda below, n=n: n % below) for n in range(len(bases))]  # type: ignore[misc]
    assert drawn == list(bases)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({0: 3}, "type 3 is not supported"),
        ({0: -1}, "type -1 is not supported"),
        ({1: -1}, "request of -1 pairs"),
        ({1: 101}, "pairs_per_request=100"),
        ({2: 4}, r"random basis \(argument 2\) 4 is outside 0..3"),
        ({3: -1}, r"random basis \(argument 3\) -1 is outside"),
        ({5: 3}, "time unit 3 is outside 0..2"),
        ({6: -1}, "max_time -1 is negative"),
        ({4: 101}, r"min_fidelity 101 \(argument 4\) is outside 0..100"),
        ({7: 101}, r"priority 101 \(argument 7\) is outside 0..highest_priority=100"),
        ({7: -1}, "priority -1"),
        ({8: 2}, r"atomic \(argument 8\) is 2"),
        ({9: -1}, r"consecutive \(argument 9\) is -1"),
        ({10: 1}, r"probabilities \(1, 0\) \(arguments 10 and 11.*random basis 0"),
        ({2: 1, 10: 256}, r"probabilities \(256, 0\)"),
        ({2: 1, 10: 9, 11: 1}, r"probabilities \(9, 1\) .* random basis 1"),
        ({3: 2, 12: 200, 13: 57}, r"probabilities \(200, 57\) \(arguments 12 and 13"),
        ({3: 3, 12: -1}, r"probabilities \(-1, 0\)"),
        ({20: 3}, "rotation axes 3 is outside 0..2"),
        ({21: -1}, "rotation axes -1 is outside"),
    ],
)
def test_arguments_out_of_range(arguments, words):
    with pytest.raises(EntanglementRequestError, match=words):
        parse(arguments)


def test_too_many_arguments():
    with pytest.raises(EntanglementRequestError, match="has 22 entries, this one 23"):
        parse_create_arguments([None] * 23, LIMITS)


@given(st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), max_size=25))
def test_any_arguments_are_a_request_or_a_typed_error(values):
    try:
        arguments = parse_create_arguments(values, LIMITS)
    except EntanglementRequestError:
        return
    assert 1 <= arguments.pairs <= LIMITS.pairs_per_request
    assert arguments.max_time_us >= 0


# --- bases ----------------------------------------------------------------------------


def observable(rotations) -> np.ndarray:
    """What a measurement of Z after the rotations measures, shape (2, 2)."""
    unitary = rotation(rotations)
    measured: np.ndarray = unitary.conj().T @ PAULI[Axis.Z] @ unitary
    return measured


def test_the_rotations_of_each_basis():
    x, y, z = (PAULI[axis] for axis in Axis)
    expected = (z, x, y, (z + x) / np.sqrt(2), (z - x) / np.sqrt(2))
    for basis, operator in enumerate(expected):
        assert np.allclose(observable(BASIS_ROTATIONS[basis]), operator)


@given(st.lists(ROTATION, max_size=4))
def test_the_basis_measured_after_rotations(rotations):
    measured = observable(rotations)
    basis = measured_basis(tuple(rotations))
    axes = {BASIS_Z: Axis.Z, BASIS_X: Axis.X, BASIS_Y: Axis.Y}
    overlaps = {b: abs(np.trace(measured @ PAULI[axis]).real / 2) for b, axis in axes.items()}
    exact = [b for b, overlap in overlaps.items() if np.isclose(overlap, 1, atol=1e-9)]
    assert basis == (exact[0] if exact else None)


ALL_BASES = tuple(BASIS_ROTATIONS)


@pytest.mark.parametrize(
    ("state", "mine", "theirs"), list(product(BellState, ALL_BASES, ALL_BASES))
)
def test_what_is_reported_has_the_correlations_of_phi_plus(state, mine, theirs):
    """Against matrices: <A B> of the state, as reported, is <A B'> of Phi+."""
    a, b = observable(BASIS_ROTATIONS[mine]), observable(BASIS_ROTATIONS[theirs])
    expectation = np.vdot(BELL[state], np.kron(a, b) @ BELL[state]).real
    flipped, reported = as_phi_plus(state, theirs, 0)
    as_if = np.kron(a, observable(BASIS_ROTATIONS[reported]))
    phi_plus = np.vdot(BELL[BellState.PHI_PLUS], as_if @ BELL[BellState.PHI_PLUS]).real
    assert (1 - 2 * flipped) * expectation == pytest.approx(phi_plus, abs=1e-12)
    assert as_phi_plus(state, theirs, 1) == (1 - flipped, reported)


def test_a_basis_the_program_fixed_must_be_a_pauli_basis():
    assert can_be_phi_plus((), 0)
    assert can_be_phi_plus(((Axis.Y, 24),), 0)
    assert not can_be_phi_plus(((Axis.Y, 4),), 0)
    assert all(can_be_phi_plus(((Axis.Y, 4),), code) for code in (1, 2, 3))
