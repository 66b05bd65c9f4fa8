"""The heralded states: published figures, limits, positivity."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from qnodeos.errors import CallerError
from qnodeos.qdevice.outcomes import BellState
from sim.entangled_state import (
    BELL_VECTORS,
    BitFlipProtocol,
    PerfectProtocol,
    SinglePhotonProtocol,
    WernerProtocol,
)
from sim.link import LinkParameters

IDEAL = {
    "visibility": 1,
    "phase_sd_deg": 0,
    "double_excitation": 0,
    "dark_rate_hz": 0,
}


def test_the_defaults_give_the_published_fidelity():
    protocol = SinglePhotonProtocol()
    assert protocol.fidelity == pytest.approx(0.72, abs=5e-5)
    assert protocol.success_probability == pytest.approx(1.81e-4, abs=5e-7)
    correlators = protocol.correlators
    assert correlators.xx == pytest.approx(0.666, abs=5e-4)
    assert correlators.yy == pytest.approx(0.666, abs=5e-4)
    assert correlators.zz == pytest.approx(-0.5475, abs=5e-5)


def test_fidelity_follows_from_the_correlators():
    protocol = SinglePhotonProtocol(alpha_a=0.1, alpha_b=0.3, phase_offset_rad=0.4)
    xx, yy, zz = protocol.correlators
    assert protocol.fidelity == pytest.approx((1 + xx + yy - zz) / 4, abs=1e-12)


@pytest.mark.parametrize(
    ("fidelity", "alpha"),
    [(0.60, 0.355), (0.65, 0.301), (0.70, 0.247), (0.75, 0.193), (0.80, 0.139)],
)
def test_alpha_for_a_wanted_fidelity(fidelity, alpha):
    protocol = SinglePhotonProtocol().for_fidelity(fidelity)
    assert protocol.alpha_a == protocol.alpha_b == pytest.approx(alpha, abs=5e-4)
    assert protocol.fidelity == pytest.approx(fidelity, abs=1e-9)


def test_of_two_alphas_the_one_with_the_higher_rate_is_taken():
    protocol = SinglePhotonProtocol().for_fidelity(0.89)
    nearby = [SinglePhotonProtocol().with_alpha(protocol.alpha_a * x) for x in (0.99, 1.01)]
    assert nearby[0].fidelity > 0.89 > nearby[1].fidelity


def test_a_fidelity_out_of_reach_is_refused_with_the_range():
    with pytest.raises(CallerError, match=r"no alpha gives a fidelity of 0.95: .* to 0.89"):
        SinglePhotonProtocol().for_fidelity(0.95)


@pytest.mark.parametrize("alpha", [0.01, 0.2256, 0.5, 0.9])
def test_without_noise_only_the_second_photon_is_left(alpha):
    protocol = SinglePhotonProtocol(**IDEAL, p_det_a=1e-9, p_det_b=1e-9).with_alpha(alpha)
    assert protocol.fidelity == pytest.approx(1 - alpha, abs=1e-8)
    assert protocol.success_probability == pytest.approx(2 * alpha * 1e-9, rel=1e-8)


def test_dark_counts_alone_herald_the_state_that_was_prepared():
    protocol = SinglePhotonProtocol(alpha_a=0.2, alpha_b=0.3, p_det_a=0, p_det_b=0)
    state = protocol.state(BellState.PSI_PLUS)
    expected = np.kron(np.diag([0.2, 0.8]), np.diag([0.3, 0.7]))
    np.testing.assert_allclose(state.density_matrix(), expected, atol=1e-12)
    assert protocol.success_probability == pytest.approx(2 * 10 * 15e-9, rel=1e-6)


@settings(deadline=None)
@given(
    alphas=st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999)),
    detection=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    visibility=st.floats(0, 1),
    dark_rate_hz=st.floats(1, 1e6),
    offset=st.floats(-math.pi, math.pi),
)
def test_every_state_is_a_state(alphas, detection, visibility, dark_rate_hz, offset):
    protocol = SinglePhotonProtocol(
        **IDEAL
        | {
            "alpha_a": alphas[0],
            "alpha_b": alphas[1],
            "p_det_a": detection[0],
            "p_det_b": detection[1],
            "visibility": visibility,
            "dark_rate_hz": dark_rate_hz,
            "phase_offset_rad": offset,
        }
    )
    assert 0 < protocol.success_probability <= 1
    for bell in protocol.heralds:
        rho = protocol.state(bell).density_matrix()
        assert np.linalg.eigvalsh(rho).min() > -1e-9
        assert protocol.state(bell).fidelity(BELL_VECTORS[bell]) == pytest.approx(
            protocol.fidelity, abs=1e-12
        )


def test_the_phase_offset_turns_the_element_01_10():
    turned = SinglePhotonProtocol(phase_offset_rad=0.7).state(BellState.PSI_PLUS).density_matrix()
    plain = SinglePhotonProtocol().state(BellState.PSI_PLUS).density_matrix()
    assert turned[1, 2] == pytest.approx(plain[1, 2] * np.exp(0.7j), abs=1e-12)


def test_the_bright_states_belong_to_their_ends():
    rho = SinglePhotonProtocol(alpha_a=0.4, alpha_b=0.1).state(BellState.PSI_MINUS)
    only_a_bright = rho.density_matrix()[1, 1].real
    only_b_bright = rho.density_matrix()[2, 2].real
    assert only_a_bright / only_b_bright == pytest.approx(0.4 * 0.9 / (0.6 * 0.1), rel=1e-2)


@pytest.mark.parametrize("bell", list(BellState))
def test_perfect_states_are_bell_states(bell):
    protocol = PerfectProtocol(heralds=(bell,))
    assert protocol.state(bell).fidelity(BELL_VECTORS[bell]) == pytest.approx(1, abs=1e-12)
    other = BellState((bell + 1) % 4)
    assert protocol.state(bell).fidelity(BELL_VECTORS[other]) == pytest.approx(0, abs=1e-12)
    with pytest.raises(CallerError, match=f"never heralds {other.name}, only {bell.name}"):
        protocol.state(other)


def test_states_are_fresh_copies():
    protocol = SinglePhotonProtocol()
    protocol.state(BellState.PSI_PLUS).qubits[0].measure(0.3)
    again = protocol.state(BellState.PSI_PLUS)
    assert again.fidelity(BELL_VECTORS[BellState.PSI_PLUS]) == protocol.fidelity


@pytest.mark.parametrize(
    "fields",
    [
        {"alpha_a": 0},
        {"visibility": 1.1},
        {"p_det_a": 0.6},
        {"alpha": 0.2},
        {"p_det_a": 0, "p_det_b": 0, "dark_rate_hz": 0},
    ],
)
def test_impossible_parameters_are_refused(fields):
    with pytest.raises(ValidationError):
        SinglePhotonProtocol(**fields)


@pytest.mark.parametrize("heralds", [(), (BellState.PHI_PLUS, BellState.PHI_PLUS)])
def test_perfect_heralds_are_some_and_distinct(heralds):
    with pytest.raises(ValidationError):
        PerfectProtocol(heralds=heralds)


@pytest.mark.parametrize("bell", BellState)
def test_a_werner_state_has_its_fidelity_and_white_noise(bell):
    protocol = WernerProtocol(fidelity=0.85, heralds=(bell,))
    state = protocol.state(bell)
    assert state.fidelity(BELL_VECTORS[bell]) == pytest.approx(0.85, abs=1e-12)
    for other in set(BellState) - {bell}:
        assert state.fidelity(BELL_VECTORS[other]) == pytest.approx(0.05, abs=1e-12)
    state.qubits[0].discard()
    assert protocol.state(bell).fidelity(BELL_VECTORS[bell]) == pytest.approx(0.85)  # a copy
    with pytest.raises(CallerError, match="never heralds"):
        protocol.state(next(iter(set(BellState) - {bell})))


_FLIPPED = {
    BellState.PHI_PLUS: BellState.PSI_PLUS,
    BellState.PSI_PLUS: BellState.PHI_PLUS,
    BellState.PHI_MINUS: BellState.PSI_MINUS,
    BellState.PSI_MINUS: BellState.PHI_MINUS,
}


@pytest.mark.parametrize("bell", BellState)
def test_a_flipped_spin_makes_the_other_bell_state_of_the_same_phase(bell):
    protocol = BitFlipProtocol(fidelity=0.85, heralds=(bell,))
    state = protocol.state(bell)
    assert state.fidelity(BELL_VECTORS[bell]) == pytest.approx(0.85, abs=1e-12)
    assert state.fidelity(BELL_VECTORS[_FLIPPED[bell]]) == pytest.approx(0.15, abs=1e-12)
    state.qubits[0].discard()
    assert protocol.state(bell).fidelity(BELL_VECTORS[bell]) == pytest.approx(0.85)  # a copy


def test_the_kind_in_a_configuration_chooses_the_protocol():
    link = LinkParameters.model_validate({"protocol": {"kind": "werner", "fidelity": 0.8}})
    assert link.protocol == WernerProtocol(fidelity=0.8)
