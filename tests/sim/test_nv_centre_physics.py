"""The numbers of an NV centre: defaults, closed forms, and the way from the behavioural ones."""

import math

import pytest
from pydantic import ValidationError
from scipy.integrate import quad

from qnodeos.errors import CallerError
from sim.noise import NVNoise
from sim.nv.physics import READOUT_US, NVPhysics

DEFAULT = NVPhysics()


def test_the_default_readout_is_the_published_one_at_its_best_duration():
    f0, f1 = DEFAULT.readout_fidelities(READOUT_US)
    assert f0 == pytest.approx(0.95, abs=2e-4)
    assert f1 == pytest.approx(0.995, abs=5e-5)
    ionised = DEFAULT.ionisation_per_readout(READOUT_US)
    assert sum(ionised) / 2 == pytest.approx(0.015, abs=5e-4)
    mean = [sum(DEFAULT.readout_fidelities(us)) / 2 for us in (210, READOUT_US, 260)]
    assert mean[1] > max(mean[0], mean[2])


@pytest.mark.parametrize("duration_us", [1.0, 50.0, 230.0, 5000.0])
def test_the_fidelities_are_the_integrals_of_the_rates(duration_us):
    physics = NVPhysics(ionisation_rate_hz=900, dark_rate_hz=150)
    time_s = duration_us / 1e6
    bright, dark = physics.bright_rate_hz, physics.dark_rate_hz
    leaving = bright * physics.flips_per_photon + physics.ionisation_rate_hz

    def first_pulse_hz(t):
        """A pulse at t as the first: still bright, or left at s without one before."""
        still = math.exp(-(bright + leaving + dark) * t)
        left = leaving / (bright + leaving) * -math.expm1(-(bright + leaving) * t)
        return (bright + dark) * still + dark * math.exp(-dark * t) * left

    f0, f1 = physics.readout_fidelities(duration_us)
    assert f0 == pytest.approx(quad(first_pulse_hz, 0, time_s, epsabs=1e-12)[0], rel=1e-7)
    assert f1 == pytest.approx(math.exp(-dark * time_s), rel=1e-12)


def test_without_any_rate_nothing_is_seen():
    nothing = NVPhysics(bright_rate_hz=0, ionisation_rate_hz=0, dark_rate_hz=0)
    assert nothing.readout_fidelities(100) == (0, 1)
    assert nothing.ionisation_per_readout(100) == (0, 0)


def test_a_noiseless_centre_is_perfect():
    physics = NVPhysics.noiseless()
    f0, f1 = physics.readout_fidelities(20)
    assert f0 == pytest.approx(1, abs=1e-12)
    assert f1 == 1
    assert physics.coherence_factor(0, 1e12) == 1
    assert math.exp(-1 / physics.pump_time_constant_us) < 1e-20


@pytest.mark.parametrize(
    "noise",
    [
        NVNoise(),
        NVNoise(readout_fidelity_0=0.8, readout_fidelity_1=0.97, ionisation_per_readout=0.05),
        NVNoise(readout_fidelity_0=0.99, ionisation_per_readout=0),
        NVNoise.noiseless(),
    ],
)
@pytest.mark.parametrize("readout_us", [50.0, 230.0])
def test_the_behavioural_numbers_are_reached(noise, readout_us):
    physics = NVPhysics.from_noise(noise, readout_us)
    f0, f1 = physics.readout_fidelities(readout_us)
    assert f0 == pytest.approx(noise.readout_fidelity_0, abs=1e-6)
    assert f1 == pytest.approx(noise.readout_fidelity_1, abs=1e-12)
    ionised = physics.ionisation_per_readout(readout_us)
    assert sum(ionised) / 2 == pytest.approx(noise.ionisation_per_readout, abs=1e-6)
    assert physics.initialisation_error == noise.initialisation_error
    for start_ns, stop_ns in ((0, 10**6), (10**6, 5 * 10**6)):
        assert physics.coherence_factor(start_ns, stop_ns) == noise.coherence_factor(
            start_ns, stop_ns
        )
    assert (physics.hyperfine_hz == 0) is (noise.gate_depolarising == 0)


def test_a_perfect_readout_that_ionises_is_missed_by_little():
    physics = NVPhysics.from_noise(NVNoise(readout_fidelity_0=1))
    assert physics.readout_fidelities(READOUT_US)[0] > 1 - 1e-3


@pytest.mark.parametrize(
    ("noise", "readout_us"),
    [
        (NVNoise(readout_fidelity_0=0.95), 1e-3),
        (NVNoise(readout_fidelity_0=0.001), 230.0),
        (NVNoise(readout_fidelity_1=0), 230.0),
        (NVNoise(), 0.0),
        (NVNoise(ionisation_per_readout=1), 230.0),
    ],
)
def test_what_no_rates_can_do_is_refused(noise, readout_us):
    with pytest.raises(CallerError):
        NVPhysics.from_noise(noise, readout_us)


def test_power_saturates_and_is_1_at_the_nominal_voltage():
    power = [DEFAULT.relative_power(volts, 2.0) for volts in (-1, 0, 1, 2, 4, 1e9)]
    assert power[:2] == [0, 0]
    assert power[3] == 1
    assert 0.5 < power[2] < 0.53
    assert 1.8 < power[4] < 2
    assert power[5] == pytest.approx(11, rel=1e-6)


def test_the_rabi_frequency_goes_as_the_root_of_the_power():
    reference = DEFAULT.drive(2e9, 0.0, (1.0, 1.0))
    assert reference == (0.0, 30e6, 30e6)
    weaker = DEFAULT.drive(2e9 + 1e6, -20.0, (1.0, 0.5))
    assert weaker == pytest.approx((-1e6, 3e6, 1.5e6))


@pytest.mark.parametrize(
    "field",
    [
        {"bright_rate_hz": -1},
        {"coherence_time_ms": 0},
        {"initialisation_error": 1.1},
        {"pump_time_constant_us": 0},
        {"amplitude_error": -1},
        {"colour": "pink"},
    ],
)
def test_impossible_numbers_are_refused(field):
    with pytest.raises(ValidationError):
        NVPhysics(**field)


def test_every_number_says_where_it_is_from():
    for name, field in NVPhysics.model_fields.items():
        assert field.description, name
        sources = ("assumed", "published", "derived", "Felton")
        assert any(source in field.description for source in sources), name
