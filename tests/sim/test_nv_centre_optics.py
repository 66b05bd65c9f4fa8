"""The NV centre under its lasers: photons, spin and charge against closed forms and QuTiP.

Statistical tests allow 4.5 standard deviations (`Z_LIMIT`); seeds are fixed.
"""

import math
import random

import numpy as np
import pytest
import qutip

from sim.adwin.hardware import DAC_CODES_PER_VOLT, DAC_ZERO_CODE, InMemoryHardware
from sim.hdawg.timing import sample_at_ns
from sim.nv.centre import NVCentre
from sim.nv.optics import JUMPS, LIGHT_OF, Jump, Light, NVState, OpticalWiring
from sim.nv.physics import NVPhysics
from sim.nv.spin import ElectronSpin, Microwaves
from sim.pauli import PauliState
from tests.sim.bench import assert_mean, assert_proportion

SEED = 20260304
SHOTS = 3000
MODULE, COUNTER = 2, 1
WIRING = OpticalWiring(
    dac_module=1,
    counter_module=MODULE,
    counter=COUNTER,
    e_readout_volts=0.5,
    e_check_volts=3.0,
    a_check_volts=2.0,
    a_pump_volts=2.0,
    repump_volts=4.0,
)
REPUMP, E, A = 1, 2, 3
VOLTS = {
    Light.OFF: {},
    Light.READOUT: {E: 0.5},
    Light.PUMP: {A: 2.0},
    Light.CHECK: {E: 3.0, A: 2.0},
    Light.REPUMP: {REPUMP: 4.0},
}
DEFAULT = NVPhysics()
US = 1000


class Bench:
    """A centre and a clock in nanoseconds."""

    def __init__(self, physics=DEFAULT, seed=SEED, wiring=WIRING):
        rng = random.Random(seed)
        spin = ElectronSpin(physics, lambda: Microwaves(2e9, 0.0), random.Random(seed + 1))
        self.centre = NVCentre(physics, spin, rng, wiring)
        self.now = 0

    @property
    def spin(self):
        return self.centre.spin

    def wait(self, duration_ns):
        """Let time pass; returns the pulses in it."""
        start, self.now = self.now, self.now + duration_ns
        return sum(self.centre.emit(start, self.now).values())

    def shine(self, light, factor=1.0):
        for channel in (REPUMP, E, A):
            volts = factor * VOLTS[light].get(channel, 0.0)
            code = round(DAC_CODES_PER_VOLT * volts) + DAC_ZERO_CODE
            self.centre.dac_changed(self.now, WIRING.dac_module, channel, code)

    def under(self, light, duration_ns, factor=1.0):
        """Shine for a time; returns the pulses in it."""
        self.shine(light, factor)
        pulses = self.wait(duration_ns)
        self.shine(Light.OFF)
        return pulses

    def prepare(self, zero):
        self.wait(100)
        self.spin.reset(sample_at_ns(self.now), zero)

    def read_out(self, duration_ns):
        """Readout that stops at the first pulse; whether there was one."""
        self.shine(Light.READOUT)
        stop = self.now + duration_ns
        first = self.centre.next_photon_ns(stop)
        self.wait((stop if first is None else first + 1) - self.now)
        self.shine(Light.OFF)
        return first is not None

    def z(self):
        return self.spin.state_at(max(self.spin.sample, sample_at_ns(self.now))).tensor[3]

    def repump(self):
        self.under(Light.REPUMP, 1000 * US)


# --- readout -----------------------------------------------------------------------------------


@pytest.mark.parametrize("duration_us", [10, 60, 230])
@pytest.mark.parametrize("bit", [0, 1])
def test_the_fidelities_of_a_readout_follow_the_closed_form(bit, duration_us):
    # Dark counts often enough to see, for a closed form that knows of them.
    physics = NVPhysics(dark_rate_hz=400)
    bench, seen = Bench(physics), 0
    for _ in range(SHOTS):
        bench.prepare(1 - bit)
        seen += bench.read_out(duration_us * US)
        bench.repump()
    f0, f1 = physics.readout_fidelities(duration_us)
    assert_proportion(seen, SHOTS, f0 if bit == 0 else 1 - f1)


@pytest.mark.parametrize("bit", [0, 1])
def test_a_readout_ionises_as_often_as_the_closed_form_says(bit):
    physics = NVPhysics(ionisation_rate_hz=2000)
    bench, ionised = Bench(physics), 0
    for _ in range(SHOTS):
        bench.prepare(1 - bit)
        bench.read_out(230 * US)
        ionised += not bench.centre.good
        bench.repump()
        assert bench.centre.good
    assert_proportion(ionised, SHOTS, physics.ionisation_per_readout(230)[bit])


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_number_of_photons_grows_with_the_power(factor):
    bench = Bench()
    duration_s = 230e-6
    power = DEFAULT.relative_power(factor, 1.0)
    rate = power * DEFAULT.bright_rate_hz
    leaving = rate * DEFAULT.flips_per_photon + power * DEFAULT.ionisation_rate_hz
    spent = -math.expm1(-leaving * duration_s) / leaving
    counts = []
    for _ in range(SHOTS):
        bench.prepare(1)
        counts.append(bench.under(Light.READOUT, 230 * US, factor))
        bench.repump()
    # Poisson given the time spent bright, which is exponential and cut off.
    second = 2 / leaving * (spent - duration_s * math.exp(-leaving * duration_s))
    sd = math.sqrt(rate * spent + rate**2 * (second - spent**2))
    assert_mean(counts, rate * spent + DEFAULT.dark_rate_hz * duration_s, sd)


def test_the_jumps_are_those_of_a_master_equation():
    """Populations of bright, dark and ionised under readout light, from QuTiP's mesolve."""
    physics = NVPhysics(flips_per_photon=0.3, ionisation_rate_hz=3000)
    times_us = [20, 60, 150]
    bright, dark, ionised = (qutip.basis(3, n) for n in range(3))
    collapses = [
        math.sqrt(physics.bright_rate_hz * physics.flips_per_photon) * dark * bright.dag(),
        math.sqrt(physics.ionisation_rate_hz) * ionised * bright.dag(),
        math.sqrt(physics.ionisation_rate_hz) * ionised * dark.dag(),
    ]
    solved = qutip.mesolve(
        qutip.qzero(3),
        bright * bright.dag(),
        [0, *(time * 1e-6 for time in times_us)],
        c_ops=collapses,
        e_ops=[qutip.ket2dm(state) for state in (bright, dark, ionised)],
    )
    bench = Bench(physics)
    found = np.zeros((len(times_us), 3), int)
    for _ in range(SHOTS):
        bench.prepare(1)
        bench.shine(Light.READOUT)
        start = bench.now
        for row, time_us in enumerate(times_us):
            bench.wait(start + time_us * US - bench.now)
            good = bench.centre.good
            found[row, 2 if not good else int(bench.z() < 0)] += 1
        bench.shine(Light.OFF)
        bench.repump()
    for row in range(len(times_us)):
        for column in range(3):
            expected = float(solved.expect[column][row + 1])
            assert_proportion(int(found[row, column]), SHOTS, expected)


def test_readout_light_projects_the_spin():
    bench, zeros = Bench(NVPhysics.noiseless()), 0
    for _ in range(SHOTS):
        bench.prepare(0.3)
        pulsed = bench.under(Light.READOUT, 20 * US) > 0
        assert bench.z() == pytest.approx(1 if pulsed else -1, abs=1e-12)
        zeros += pulsed
    assert_proportion(zeros, SHOTS, 0.3)


def test_the_readout_of_one_half_of_a_pair_tells_the_other():
    for seed in range(40):
        bench, other = Bench(NVPhysics.noiseless(), seed), Bench(NVPhysics.noiseless(), seed + 99)
        pair = PauliState.from_pure(np.array([0, 1, 1, 0]) / math.sqrt(2))
        for one, qubit in zip((bench, other), pair.qubits, strict=True):
            one.spin.adopt(qubit, 100)
            one.now = 1000
        pulses = [one.under(Light.READOUT, 20 * US) > 0 for one in (bench, other)]
        assert pulses[0] is not pulses[1]


def test_a_spin_that_flipped_stays_dark():
    bench = Bench(NVPhysics(flips_per_photon=1, dark_rate_hz=0, ionisation_rate_hz=0))
    bench.prepare(1)
    bench.under(Light.READOUT, 10_000 * US)
    assert bench.z() == -1
    assert bench.under(Light.READOUT, 10_000 * US) == 0


# --- charge check, ionisation and repump ---------------------------------------------------------


@pytest.mark.parametrize("zero", [0.0, 1.0])
def test_the_charge_check_counts_photons_of_a_good_centre_whatever_its_spin(zero):
    bench, counts = Bench(), []
    for _ in range(500):
        bench.prepare(zero)
        counts.append(bench.under(Light.CHECK, 50 * US))
    mean = (DEFAULT.cr_rate_hz + DEFAULT.dark_rate_hz) * 50e-6
    assert_mean(counts, mean, math.sqrt(mean))
    # The variance of a Poisson variable is its mean; its own s.d. is mean sqrt(2/N).
    assert np.var(counts) == pytest.approx(mean, rel=4.5 * math.sqrt(2.1 / len(counts)))


def test_the_charge_check_separates_good_from_ionised():
    bench = Bench()
    good = [bench.under(Light.CHECK, 50 * US) for _ in range(500)]
    bench.centre.ionise(bench.now)
    ionised = [bench.under(Light.CHECK, 50 * US) for _ in range(500)]
    assert max(ionised) < 5
    assert min(good) > 12
    assert not bench.centre.good


def test_the_charge_check_and_the_repump_lose_the_spin():
    for light in (Light.CHECK, Light.REPUMP):
        bench = Bench()
        bench.prepare(1)
        assert bench.z() == 1
        bench.under(light, 10 * US)
        assert bench.z() == 0


def test_an_ionised_centre_reads_dark_cannot_be_pumped_and_stays_so():
    bench = Bench(NVPhysics(dark_rate_hz=0))
    bench.centre.ionise(bench.now)
    bench.under(Light.PUMP, 10 * US)
    bench.centre.pump(bench.now, bench.now + 2000)
    assert bench.z() == 0
    for light in (Light.READOUT, Light.CHECK, Light.PUMP, Light.OFF):
        assert bench.under(light, 1000 * US) == 0
        assert not bench.centre.good


@pytest.mark.parametrize("duration_us", [10, 30, 100])
def test_the_repump_takes_an_exponential_time(duration_us):
    bench, recovered = Bench(), 0
    for _ in range(SHOTS):
        bench.centre.ionise(bench.now)
        bench.under(Light.REPUMP, duration_us * US)
        recovered += bench.centre.good
    expected = -math.expm1(-duration_us / DEFAULT.repump_time_constant_us)
    assert_proportion(recovered, SHOTS, expected)


def test_the_repump_leaves_a_good_centre_good():
    bench = Bench()
    bench.repump()
    assert bench.centre.good


def test_dark_counts_come_at_all_times():
    physics = NVPhysics(dark_rate_hz=1e4)
    bench = Bench(physics)
    bench.centre.ionise(bench.now)
    for light in Light:
        counts = [bench.under(light, 100 * US) for _ in range(1000)]
        assert_mean(counts, 1.0, 1.0)


# --- pumping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("duration_ns", [0, 100, 500, 2000])
def test_the_marker_pumps_the_spin_exponentially(duration_ns):
    bench = Bench()
    bench.prepare(0)
    start = bench.now
    bench.wait(duration_ns + 100)
    bench.centre.pump(start, start + duration_ns)
    left = math.exp(-duration_ns / 200)
    assert (1 - bench.z()) / 2 == pytest.approx(0.01 + 0.99 * left, abs=1e-12)


def test_the_a_laser_alone_pumps_as_the_marker_does():
    one, two = Bench(), Bench()
    for bench in (one, two):
        bench.prepare(0)
    one.under(Light.PUMP, 300)
    start = two.now
    two.wait(300)
    two.centre.pump(start, start + 300)
    assert one.z() == pytest.approx(two.z(), abs=1e-12)
    one.prepare(0)
    one.under(Light.PUMP, 300, factor=3.0)
    assert one.z() > two.z()


def test_the_e_laser_alone_pumps_to_the_dark_state():
    physics = NVPhysics(ionisation_rate_hz=0)
    bench, dark = Bench(physics), 0
    for _ in range(SHOTS):
        bench.prepare(1)
        bench.under(Light.READOUT, 100 * US, factor=10.0)
        dark += bench.z() < 0
    rate = physics.relative_power(10, 1) * physics.bright_rate_hz * physics.flips_per_photon
    assert_proportion(dark, SHOTS, -math.expm1(-rate * 100e-6))


def test_a_window_before_what_the_spin_has_done_is_refused():
    bench = Bench()
    bench.prepare(1)
    with pytest.raises(ValueError, match="in the order of time"):
        bench.centre.pump(0, 10)


# --- how it is asked -----------------------------------------------------------------------------


@pytest.mark.parametrize("light", list(Light))
def test_asking_ahead_and_in_pieces_changes_nothing(light):
    one, two = Bench(NVPhysics(dark_rate_hz=5e3)), Bench(NVPhysics(dark_rate_hz=5e3))
    rng = random.Random(SEED)
    for _ in range(30):
        for bench in (one, two):
            bench.prepare(0.5)
            bench.shine(light)
        whole = one.wait(300 * US)
        pieces = 0
        end = two.now + 300 * US
        while two.now < end:
            two.centre.next_photon_ns(two.now + rng.randrange(1, 10**6))
            pieces += two.wait(min(end - two.now, rng.randrange(1, 40 * US)))
        assert pieces == whole
        for bench in (one, two):
            bench.shine(Light.OFF)
        assert one.centre.good is two.centre.good
        assert one.z() == two.z()


def test_the_next_photon_is_counted_by_a_read_after_it_and_not_before():
    bench = Bench()
    bench.prepare(1)
    bench.shine(Light.READOUT)
    seen = 0
    while (at := bench.centre.next_photon_ns(10**6)) is not None:
        assert bench.centre.next_photon_ns(at) is None
        assert bench.wait(at - bench.now) == 0
        assert bench.wait(1) >= 1
        seen += 1
    assert seen > 3


def test_no_photon_without_any_rate():
    bench = Bench(NVPhysics.noiseless())
    assert bench.centre.next_photon_ns(10**15) is None
    bench.prepare(0)
    bench.shine(Light.READOUT)
    assert bench.centre.next_photon_ns(10**15) is None
    # A flip that will come is no photon.
    flipping = Bench(NVPhysics(dark_rate_hz=0, flips_per_photon=1e3, ionisation_rate_hz=0))
    flipping.prepare(1)
    flipping.shine(Light.READOUT)
    assert flipping.centre.next_photon_ns(10**15) is None
    flipping.wait(1000 * US)
    assert flipping.z() == -1


def test_the_same_seed_gives_the_same_photons():
    def record(seed):
        bench, counts = Bench(seed=seed), []
        for _ in range(50):
            counts.append(bench.under(Light.CHECK, 50 * US))
            bench.prepare(0.5)
            counts.append(bench.under(Light.READOUT, 230 * US))
            bench.repump()
        return counts

    assert record(1) == record(1)
    assert record(1) != record(2)


def test_it_drives_the_counter_of_a_simulated_adwin():
    bench = Bench()
    hardware = InMemoryHardware(bench.centre)
    volts = VOLTS[Light.CHECK]
    hardware.p2_cnt_enable(0, MODULE, 1 << (COUNTER - 1))
    for channel in (E, A):
        code = round(DAC_CODES_PER_VOLT * volts[channel]) + DAC_ZERO_CODE
        hardware.p2_dac(10, WIRING.dac_module, channel, code)
    assert bench.centre.light is Light.CHECK
    first = bench.centre.next_photon_ns(10**6)
    assert first is not None
    assert hardware.p2_cnt_read(first, MODULE, COUNTER) == 0
    assert hardware.p2_cnt_read(first + 1, MODULE, COUNTER) == 1
    assert 15 < hardware.p2_cnt_read(50_010, MODULE, COUNTER) < 80
    for channel in (E, A):
        hardware.p2_dac(50_010, WIRING.dac_module, channel, DAC_ZERO_CODE)
    assert hardware.dac_codes[WIRING.dac_module, A] == DAC_ZERO_CODE
    assert hardware.p2_cnt_read(100_000, MODULE, COUNTER) < 80


# --- wiring and tables ---------------------------------------------------------------------------


def test_other_outputs_and_negative_voltages_make_no_light():
    bench = Bench()
    for module, channel, code in (
        (WIRING.dac_module + 1, E, 65_535),
        (WIRING.dac_module, 4, 65_535),
        (WIRING.dac_module, E, 0),
        (WIRING.dac_module, E, DAC_ZERO_CODE),
    ):
        bench.centre.dac_changed(0, module, channel, code)
        assert bench.centre.light is Light.OFF


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"e_channel": 3}, "share an analogue output"),
        ({"a_pump_volts": 0.0}, "a_pump_volts is 0"),
        ({"repump_volts": math.nan}, "repump_volts is nan"),
    ],
)
def test_wiring_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        OpticalWiring(**wrong)


def test_the_tables_say_something_about_every_combination_of_lasers():
    assert {LIGHT_OF[False, e, a] for e in (False, True) for a in (False, True)} == {
        Light.OFF,
        Light.READOUT,
        Light.PUMP,
        Light.CHECK,
    }
    assert all(LIGHT_OF[True, e, a] is Light.REPUMP for e in (False, True) for a in (False, True))
    for (light, state), jumps in JUMPS.items():
        assert light in Light
        assert state in NVState
        assert jumps[0] is Jump.PULSE
