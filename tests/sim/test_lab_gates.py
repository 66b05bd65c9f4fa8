"""Gates of a simulated node are what its AWG plays through its microwave source."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from qnodeos.qdevice.instructions import Axis, ini, msr, sqg
from qnodeos.qdevice.outcomes import Outcome
from sequences.waveform_table import FIRST_ROTATION
from sim.lab.timing import SAMPLES_PER_EVENT, SAMPLES_PER_NS
from tests.sim.lab_harness import (
    NOISELESS,
    Runner,
    fidelity_after,
    lone_laboratory,
    random_gates,
    record_plays,
    state_after,
)

SEED = 20260105
FULL_SCALE = 32_767


@pytest.fixture(scope="module")
def shared():
    with lone_laboratory() as runner:
        yield runner


@pytest.fixture
def lone(shared):
    """The shared laboratory; source and outputs are as set up afterwards."""
    yield shared
    simulated = shared.nodes[0]
    for output in simulated.instruments.station.awg.outputs[:2]:
        output.on(1)
    simulated.apply(simulated.instruments.settings)


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_sequences_of_gates_are_the_ideal_ones(lone, count):
    rng = random.Random(f"{SEED} {count}")
    for _ in range(6):
        assert fidelity_after(lone, random_gates(rng, count)) >= 0.999


def test_every_rotation_is_the_one_asked_for(lone):
    for axis in (Axis.X, Axis.Y):
        for steps in range(32):
            # From a state that every rotation moves.
            gates = [sqg(Axis.X, 5), sqg(Axis.Y, 3), sqg(axis, steps)]
            assert fidelity_after(lone, gates) >= 0.9995, (axis, steps)


@pytest.mark.parametrize("axis", [Axis.X, Axis.Y])
def test_one_sample_of_an_uploaded_waveform_changes_the_gate(lone, axis):
    gate = sqg(axis, 8)
    core = lone.node.awg.cores[0]
    entry = FIRST_ROTATION + gate.argument
    words = core.words[entry]
    # Words of a sample: I, Q and markers.
    changed = words.copy().reshape(-1, 3)
    sample = int(np.argmax(np.abs(changed[:, axis].view(np.int16))))
    level = int(changed[sample, axis].view(np.int16))
    changed[sample, axis] = 0
    before = state_after(lone, [gate])
    core.set_waveform(entry, changed.ravel())
    after = state_after(lone, [gate])
    core.set_waveform(entry, words)
    # The pulse lacks the angle of that sample, and nothing else.
    missing = 2 * np.pi * NOISELESS.full_scale_rabi_hz * level / FULL_SCALE / 2.4e9
    assert abs(missing) > 0.01

    def angle(rho: np.ndarray) -> float:
        sideways = -2 * rho[0, 1].imag if axis is Axis.X else 2 * rho[0, 1].real
        return float(np.arctan2(sideways, 2 * rho[0, 0].real - 1))

    assert abs(angle(before)) == pytest.approx(np.pi / 2, abs=1e-3)
    assert abs(angle(before) - angle(after)) == pytest.approx(abs(missing), rel=1e-6)
    np.testing.assert_allclose(state_after(lone, [gate]), before, rtol=0, atol=1e-12)


def flip_probability(runner: Runner) -> float:
    """Of one half turn, seen before the first pulse of the decoupling."""
    plays = record_plays(runner.node)
    runner.run([ini(), sqg(Axis.X, 16), 1])
    runner.node.run_awg(runner.node.event * SAMPLES_PER_EVENT)
    del runner.node._take_play
    [rotation] = [sample for sample, entry in plays if entry == FIRST_ROTATION + 16]
    over = rotation + SAMPLES_PER_EVENT // 2
    runner.node.bring_spin_to(over / SAMPLES_PER_NS)
    rho = runner.node.centre.spin.state_at(over).density_matrix()
    return float(rho[1, 1].real)


def test_the_power_of_the_source_is_that_of_the_gate(lone):
    node, found = lone.nodes[0], []
    settings = node.instruments.settings
    for amplitude in (1.0, 0.5, 0.25):
        node.apply(replace(settings, mw_power_dbm=20 * math.log10(amplitude)))
        found.append(flip_probability(lone))
    node.apply(settings)
    assert found == pytest.approx([1, 0.5, math.sin(math.pi / 8) ** 2], abs=1e-3)


@pytest.mark.parametrize("off", ["source", "modulation"])
def test_without_microwaves_nothing_turns(lone, off):
    source = lone.nodes[0].instruments.station.microwave
    if off == "source":
        source.status("off")
    else:
        source.IQ_state("off")
    lone.nodes[0]._microwaves.refresh()
    [answers] = lone.run([ini(), sqg(Axis.X, 16), msr(), ini(), sqg(Axis.Y, 16), msr()])
    assert {answer.outcome for answer in answers} == {Outcome.SUCCESS_ZERO}


def test_each_output_of_the_awg_drives_one_axis(lone):
    lone.nodes[0].instruments.station.awg.outputs[0].on(0)
    lone.nodes[0]._microwaves.refresh()
    [answers] = lone.run([ini(), sqg(Axis.X, 16), msr(), ini(), sqg(Axis.Y, 16), msr()])
    assert answers[2].outcome is Outcome.SUCCESS_ZERO
    assert answers[5].outcome is Outcome.SUCCESS_ONE


def test_the_further_off_the_frequency_the_worse_the_gate(lone):
    node, found = lone.nodes[0], []
    settings = node.instruments.settings
    for off_hz in (0.0, 1e6, 2e6, 4e6):
        node.apply(replace(settings, mw_frequency_hz=settings.mw_frequency_hz + off_hz))
        found.append(flip_probability(lone))
    node.apply(settings)
    assert found[0] > 0.9999
    assert sorted(found, reverse=True) == found
    assert found[1] - found[3] > 0.005
