"""The simulated ion against QuTiP, closed forms and its own count distributions.

A goodness of fit is asked to have p > 1e-5, a share to lie within 4.5 standard deviations.
"""

from __future__ import annotations

import itertools
import math
import random
from functools import cache

import numpy as np
import pytest
import qutip
from scipy.stats import chisquare

from sequences.fluorescence import bright_pmf, dark_pmf
from sequences.thermal_rabi import thermal
from sim.ion.ion import MAX_STRETCH_NS, Ion, IonFault, Light
from sim.ion.physics import IonPhysics

CARRIER_HZ = 80e6
TRAP_HZ = 1e6
DOPPLER = Light(doppler_397=True, repump_866=True, reset_854=True)
RESET = Light(repump_866=True, reset_854=True)
PUMP = Light(repump_866=True, pump_397=True)
DETECTION = Light(doppler_397=True, repump_866=True)
WINDOW_US = 1_500
WINDOW_NS = WINDOW_US * 1_000
P_VALUE = 1e-5


def made(seed=1, **physics):
    """An ion without noise but for some."""
    return Ion(IonPhysics.noiseless(**physics), random.Random(seed))


def cold(seed=1, **physics):
    """The same, in S1/2."""
    ion = made(seed, **physics)
    ion.advance(1_000_000, DOPPLER)
    ion.advance(50_000, RESET)
    return ion


def tone(phase_rad=0.0, detuning_hz=0.0, amplitude=1.0):
    return Light(
        rf_729=True,
        frequency_hz=CARRIER_HZ + detuning_hz,
        phase_rad=phase_rad,
        amplitude=amplitude,
    )


def red(amplitude=1.0):
    return tone(detuning_hz=-TRAP_HZ, amplitude=amplitude)


# --- carrier ------------------------------------------------------------------------------------


@cache
def kept_phonons(eta):
    """<n| exp(i eta (a + a^dagger)) |n> in units of that of n = 0."""
    a = qutip.destroy(90)
    displaced = (1j * eta * (a + a.dag())).expm().full().diagonal().real
    return displaced / displaced[0]


def motional_flip(mean_phonons, eta, time, detuning, levels):
    """P(D5/2) from the full Hamiltonian of spin and motion, in the resolved-sideband limit.

    The part of exp(i eta (a + a^dagger)) that keeps the number of phonons is taken from the
    displacement operator itself; times are in units of the inverse Rabi frequency at n = 0.
    """
    coupling = qutip.Qobj(np.diag(kept_phonons(eta)[:levels]))
    hamiltonian = (
        qutip.tensor(qutip.sigmax(), coupling)
        + detuning * qutip.tensor(qutip.sigmaz(), qutip.qeye(levels))
    ) / 2
    weights = thermal(mean_phonons, levels)
    state = qutip.tensor(qutip.fock_dm(2, 0), qutip.Qobj(np.diag(weights)))
    turn = (-1j * hamiltonian * time).expm()
    final = (turn * state * turn.dag()).ptrace(0)
    return float(final.full()[1, 1].real)


@pytest.mark.parametrize("mean_phonons", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("detuning_hz", [0.0, 30e3])
def test_thermal_rabi_oscillation_is_that_of_the_full_hamiltonian(mean_phonons, detuning_hz):
    rabi = math.pi / 10_000  # rad/ns
    for duration_ns in (3_000, 47_000):
        ion = cold(eta=0.15, doppler_phonons=mean_phonons)
        assert ion.mean_phonons == mean_phonons
        ion.advance(duration_ns, tone(detuning_hz=detuning_hz))
        detuning = 2 * math.pi * detuning_hz * 1e-9 / rabi
        expected = motional_flip(mean_phonons, 0.15, rabi * duration_ns, detuning, levels=50)
        assert ion.p_d == pytest.approx(expected, abs=2e-6)


def test_a_pulse_in_pieces_is_the_same_pulse():
    whole, pieces = (cold(doppler_phonons=2.0, gate_depolarising=0.1) for _ in range(2))
    whole.advance(9_000, tone(0.3))
    for _ in range(3):
        pieces.advance(3_000, tone(0.3))
    assert pieces.density == pytest.approx(whole.density, abs=1e-12)


@pytest.mark.parametrize(
    ("phase_rad", "axis"),
    [
        (0.0, qutip.sigmax()),
        (math.pi / 2, qutip.sigmay()),
        (math.pi, -qutip.sigmax()),
        (0.7, math.cos(0.7) * qutip.sigmax() + math.sin(0.7) * qutip.sigmay()),
    ],
)
def test_the_phase_is_the_axis(phase_rad, axis):
    ion = cold()
    # A state without symmetry, then the pulse.
    ion.advance(3_000, tone())
    ion.advance(0, tone())
    before = qutip.Qobj(ion.density)
    ion.advance(4_000, tone(phase_rad))
    turn = (-0.5j * 0.4 * math.pi * axis).expm()
    assert ion.density == pytest.approx((turn * before * turn.dag()).full(), abs=1e-12)


def test_half_the_amplitude_turns_half_as_far():
    ion = cold()
    ion.advance(20_000, tone(amplitude=0.5))
    assert ion.p_d == pytest.approx(1)


def test_every_pulse_depolarises_once():
    ion = cold(gate_depolarising=0.02)
    for _ in range(2):
        ion.advance(10_000, tone())
        ion.advance(100)
    # two pi pulses: p_d = (1 - 0.98^2) / 2
    assert ion.p_d == pytest.approx((1 - 0.98**2) / 2)


def test_light_far_from_everything_does_nothing():
    ion = cold()
    ion.advance(10_000, tone(detuning_hz=5.2e6))
    assert ion.p_d == pytest.approx(0)


# --- darkness -----------------------------------------------------------------------------------


def test_ramsey_fringe_is_that_of_the_master_equation():
    detuning_hz, wait_ns = 700.0, 4_300_000
    ion = cold(coherence_time_ms=5.0, d_lifetime_s=0.02)
    pulse = tone(detuning_hz=detuning_hz)
    ion.advance(5_000, pulse)
    started = qutip.Qobj(ion.density)
    ion.advance(wait_ns)
    # T2 = 5 ms: half the rate of decay, and pure dephasing for the rest; times in ms.
    decay = 1 / 20
    dephasing = 1 / 5 - decay / 2
    delta = 2 * math.pi * detuning_hz * 1e-3
    # sigmap() takes the second state, D5/2, to the first.
    collapse = [math.sqrt(decay) * qutip.sigmap(), math.sqrt(dephasing / 2) * qutip.sigmaz()]
    solved = qutip.mesolve(
        delta * qutip.sigmaz() / 2,
        started,
        [0, wait_ns * 1e-6],
        c_ops=collapse,
        options={"atol": 1e-10, "rtol": 1e-9},
    )
    assert ion.density == pytest.approx(solved.states[-1].full(), abs=1e-7)


# --- cooling and preparation ----------------------------------------------------------------------


def test_red_sideband_flips_one_cold_phonon_only():
    # One phonon in the mean, eta small: P = sum over n of p_n sin^2(eta sqrt(n) angle / 2).
    eta = 0.01
    ion = cold(eta=eta, doppler_phonons=1.0)
    duration_ns = 700_000
    ion.advance(duration_ns, red())
    angle = math.pi * duration_ns / 10_000
    n = np.arange(60)
    expected = thermal(1.0, 60) @ np.sin(eta * np.sqrt(n) * angle / 2) ** 2
    assert ion.p_d == pytest.approx(expected, abs=2e-3)
    assert ion.mean_phonons == pytest.approx(1.0 - expected, abs=2e-3)


def test_a_blue_pulse_heats_where_a_red_one_cools():
    eta = 0.01
    ion = cold(eta=eta, doppler_phonons=1.0)
    ion.advance(300_000, tone(detuning_hz=TRAP_HZ))
    n = np.arange(60)
    flips = thermal(1.0, 60) @ np.sin(eta * np.sqrt(n + 1) * 30 * math.pi / 2) ** 2
    assert ion.p_d == pytest.approx(flips, abs=2e-3)
    assert ion.mean_phonons == pytest.approx(1.0 + flips, abs=2e-3)


def cooled(ion, cycles):
    for _ in range(cycles):
        ion.advance(85_000, red())
        ion.advance(20_000, RESET)
        ion.advance(20_000, PUMP)
        yield ion.mean_phonons


def test_sideband_cooling_goes_down_to_its_limit_and_no_further():
    means = list(cooled(cold(doppler_phonons=10.8, mean_phonons=0.05), 60))
    assert means[0] < 10.8
    assert all(later <= earlier for earlier, later in itertools.pairwise(means))
    assert means[39] == pytest.approx(0.05, abs=2e-3)
    assert means[-1] == pytest.approx(0.05, abs=1e-4)


def test_no_sideband_cooling_without_reset():
    ion = cold(doppler_phonons=10.8)
    for _ in range(40):
        ion.advance(85_000, red())
    assert ion.mean_phonons > 5


def test_doppler_cooling_needs_its_time():
    ion = cold(doppler_phonons=10.0, doppler_us=100.0)
    list(cooled(ion, 60))
    before = ion.mean_phonons
    ion.advance(100_000, DETECTION)
    assert ion.mean_phonons == pytest.approx(10 + (before - 10) / math.e, abs=1e-5)


def test_reset_and_pumping():
    ion = cold(preparation_error=0.01, reset_us=2.0, pump_us=3.0)
    ion.advance(10_000, tone())
    ion.advance(4_000, RESET)
    assert ion.p_d == pytest.approx(math.exp(-2))
    ion.advance(100_000, RESET)
    assert ion.p_d == pytest.approx(0)
    ion.advance(3_000, PUMP)
    assert ion.p_d == pytest.approx(0.01 * (1 - math.exp(-1)))
    ion.advance(100_000, PUMP)
    assert ion.p_d == pytest.approx(0.01)


def test_pumping_needs_the_repumper():
    ion = cold(preparation_error=0.01)
    ion.advance(100_000, Light(pump_397=True))
    assert ion.p_d == 0


# --- photons ------------------------------------------------------------------------------------


def agrees(counts, pmf):
    """Whether counts follow a distribution: bins with few expected are put together."""
    k = np.arange(int(counts.max()) + 60)
    expected = counts.size * pmf(k)
    edges, total = [0], 0.0
    for place, number in enumerate(expected):
        total += number
        if total >= 10:
            edges.append(place + 1)
            total = 0.0
    edges[-1] = k.size
    observed = np.add.reduceat(np.bincount(counts, minlength=k.size), edges[:-1])
    binned = np.add.reduceat(expected, edges[:-1])
    return chisquare(observed, binned * observed.sum() / binned.sum()).pvalue > P_VALUE


NOISY = {
    "d_lifetime_s": 0.01,
    "coherence_time_ms": 20.0,
    "bright_cps": 40_000.0,
    "dark_cps": 1_500.0,
}
"""With a short lifetime one window in seven has a decay."""


def shelved(ion):
    ion.advance(50_000, RESET)
    ion.advance(10_000, tone())


def test_dark_counts_have_the_closed_form():
    ion = cold(**NOISY)
    counts = []
    for _ in range(4_000):
        shelved(ion)
        counts.append(ion.advance(WINDOW_NS, DETECTION))
    # 10 us of a pulse cost one shot in a thousand.
    window = ion.physics.window(WINDOW_US)
    share = math.exp(-10e-6 / 0.01)
    assert agrees(
        np.array(counts),
        lambda k: share * dark_pmf(k, window) + (1 - share) * bright_pmf(k, window),
    )


def test_bright_counts_are_poisson_distributed():
    ion = cold(**NOISY)
    counts = np.array([ion.advance(WINDOW_NS, DETECTION) for _ in range(3_000)])
    assert agrees(counts, lambda k: bright_pmf(k, ion.physics.window(WINDOW_US)))


def test_windows_at_once_have_the_same_distribution_and_change_nothing():
    ion = cold(**NOISY)
    shelved(ion)
    before = ion.p_d
    counts = ion.windows(WINDOW_NS, 20_000)
    window = ion.physics.window(WINDOW_US)
    assert agrees(
        counts, lambda k: before * dark_pmf(k, window) + (1 - before) * bright_pmf(k, window)
    )
    assert ion.p_d == before


def test_a_window_in_pieces_has_the_same_distribution():
    ion = cold(**NOISY)
    counts = []
    for _ in range(3_000):
        shelved(ion)
        counts.append(sum(ion.advance(WINDOW_NS // 3, DETECTION) for _ in range(3)))
    window = ion.physics.window(WINDOW_US)
    share = math.exp(-10e-6 / 0.01)
    assert agrees(
        np.array(counts),
        lambda k: share * dark_pmf(k, window) + (1 - share) * bright_pmf(k, window),
    )


def test_a_measurement_projects():
    ion = cold()
    shots = 2_000
    dark = 0
    for _ in range(shots):
        ion.advance(50_000, RESET)
        ion.advance(5_000, tone())
        first = ion.advance(WINDOW_NS, DETECTION) <= 33
        assert (ion.advance(WINDOW_NS, DETECTION) <= 33) == first
        assert ion.p_d == first
        dark += first
    assert abs(dark - shots / 2) < 4.5 * math.sqrt(shots / 4)


def test_doppler_cooling_empties_the_dark_state_at_once():
    ion = cold()
    shelved(ion)
    assert ion.advance(WINDOW_NS, DETECTION) == 0
    # 1.5 ms at 200 kcps
    assert abs(ion.advance(WINDOW_NS, DOPPLER) - 300) < 4.5 * math.sqrt(300)
    assert ion.p_d == 0


def test_nothing_fluoresces_without_the_repumper():
    ion = cold(dark_cps=0.0)
    assert ion.advance(WINDOW_NS, Light(doppler_397=True)) == 0
    assert ion.advance(WINDOW_NS, DETECTION) > 100


def test_the_same_seed_gives_the_same_photons():
    counts = [
        [ion.advance(WINDOW_NS, DETECTION) for _ in range(20)]
        for ion in (cold(3, **NOISY), cold(3, **NOISY), cold(4, **NOISY))
    ]
    assert counts[0] == counts[1] != counts[2]


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("duration_ns", [-1, MAX_STRETCH_NS + 1])
def test_durations_out_of_range(duration_ns):
    with pytest.raises(ValueError, match="stretch"):
        made().advance(duration_ns)


@pytest.mark.parametrize("other", ["doppler_397", "reset_854", "pump_397"])
def test_other_light_during_a_pulse_is_refused(other):
    with pytest.raises(IonFault, match="729 nm"):
        made().advance(100, tone()._replace(**{other: True}))


def test_the_switch_without_amplitude_is_darkness():
    ion = cold()
    ion.advance(100, tone(amplitude=0.0)._replace(reset_854=True))
    ion.advance(10_000, tone(amplitude=0.0))
    assert ion.p_d == 0


def test_no_time_is_no_change():
    ion = made()
    assert ion.advance(0, DETECTION) == 0
    assert ion.p_d == pytest.approx(0.5)
