"""XY8: exact spacing, the phases, the half spacings around a gate, and what they are for."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequences.decoupling import XY8, DecouplingPlan, Lead, Slot
from sequences.errors import DecouplingError
from sequences.program import MAX_ZERO_SAMPLES
from sequences.pulses import Axis, PulseCalibration
from sequences.waveform_table import (
    FIRST_ROTATION,
    FIRST_X_COPY,
    FIRST_Y_COPY,
    TableSettings,
    WaveformTable,
    build_table,
    rotation_samples,
)
from tests.unit.spin_half import FULL_SCALE_RABI_HZ, HYPERFINE_HZ, free, infidelity, propagator

ENTRY_SAMPLES, CENTRE = 304, 152
"""Of a rotation, with the default pulses."""

PLANS = st.builds(DecouplingPlan, spacing_samples=st.integers(800, 400_000))


def first_slot(plan: DecouplingPlan) -> tuple[int, Lead]:
    """Where the first slot starts, if a rotation starts at sample 0."""
    lead = plan.lead_in(ENTRY_SAMPLES, CENTRE)
    return ENTRY_SAMPLES + lead.zero_samples, lead


@given(PLANS, st.integers(0, 15))
def test_any_spacing_is_exact_to_the_sample(plan, shift):
    slots = list(islice(plan.slots(1600, shift), 100))
    pulses = [slot.start_sample + slot.shift for slot in slots]
    assert {later - earlier for earlier, later in pairwise(pulses)} == {plan.spacing_samples}
    assert pulses[0] == 1600 + shift
    assert all(slot.start_sample % 16 == 0 and 0 <= slot.shift < 16 for slot in slots)


@given(PLANS)
def test_everything_played_is_playable(plan):
    zeros = [
        plan.gap.zero_samples,
        plan.lead_in(ENTRY_SAMPLES, CENTRE).zero_samples,
        plan.lead_out(CENTRE).zero_samples,
    ]
    assert all(zero % 16 == 0 and 32 <= zero <= MAX_ZERO_SAMPLES - 16 for zero in zeros)
    assert plan.slot_samples % 16 == 0
    assert plan.slot_samples >= plan.pulse_samples + 15


def test_the_phases_repeat_every_eight_pulses():
    slots = islice(DecouplingPlan().slots(0, 0), 24)
    assert "".join(slot.axis.name for slot in slots) == "XYXYYXYX" * 3
    assert len(XY8) == 8


@given(PLANS)
def test_the_first_pulse_is_half_a_spacing_after_the_gate(plan):
    start, lead = first_slot(plan)
    centre = start + lead.shift + plan.pulse_samples // 2
    assert centre - CENTRE == plan.spacing_samples // 2 - plan.gate_excess_samples


@given(PLANS, st.integers(1, 50))
def test_the_next_gate_is_half_a_spacing_after_the_last_pulse(plan, n_blocks):
    start, lead = first_slot(plan)
    *_, last = islice(plan.slots(start, lead.shift), 8 * n_blocks)
    entry = plan.entry_after(last, CENTRE)
    assert entry % 16 == 0
    last_centre = last.start_sample + last.shift + plan.pulse_samples // 2
    half_spacing = plan.spacing_samples - plan.spacing_samples // 2
    error = entry + CENTRE - last_centre - half_spacing + plan.gate_excess_samples
    assert -7 <= error <= 8


@pytest.mark.parametrize("spacing", [24_102, 24_101])
def test_a_gate_is_rounded_to_the_nearest_granule_from_any_shift(spacing):
    plan = DecouplingPlan(spacing)
    due = [shift + 151 + (spacing + 1) // 2 - 3 - CENTRE for shift in range(16)]
    starts = [plan.entry_after(Slot(0, shift, Axis.X), CENTRE) for shift in range(16)]
    assert {start - wanted for start, wanted in zip(starts, due, strict=True)} == set(range(-7, 9))


@pytest.mark.parametrize(("spacing", "values"), [(24_102, 1), (24_101, 2)])
def test_the_rounding_error_hardly_varies_between_rotations(spacing, values):
    plan = DecouplingPlan(spacing)
    start, lead = first_slot(plan)
    distances = set()
    for n_blocks in range(1, 20):
        *_, last = islice(plan.slots(start, lead.shift), 8 * n_blocks)
        distances.add(plan.entry_after(last, CENTRE) - 8 * n_blocks * spacing)
    assert len(distances) == values


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: DecouplingPlan(351), "can be 352"),
        (lambda: DecouplingPlan(MAX_ZERO_SAMPLES + 321), r"can be 352..524592"),
        (lambda: DecouplingPlan(pulse_samples=301), "even"),
        (lambda: DecouplingPlan(pulse_samples=0), "even"),
        (lambda: DecouplingPlan(gate_excess_samples=-1), "gate_excess_samples = -1"),
        (lambda: DecouplingPlan(400, gate_excess_samples=200), "half spacing of 200"),
        (lambda: DecouplingPlan(352).lead_in(ENTRY_SAMPLES, CENTRE), "after an entry"),
        (lambda: DecouplingPlan(352).lead_out(CENTRE), "before an entry"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(DecouplingError, match=message):
        wrong()


def test_the_longest_and_the_shortest_spacing_are_accepted():
    assert DecouplingPlan(352).gap == (32, 0)
    assert DecouplingPlan(MAX_ZERO_SAMPLES + 320).gap == (MAX_ZERO_SAMPLES, 0)
    # With the granule that the shift adds now and then, the same silence.
    assert DecouplingPlan(MAX_ZERO_SAMPLES + 319).gap == (MAX_ZERO_SAMPLES - 16, 15)


# --- what it does to a spin ----------------------------------------------------------------


def gate_blocks_gate(table: WaveformTable, n_blocks: int, detuning_hz: float):
    """Propagate from a pi/2 about X through XY8 blocks to a -pi/2 about X, as played."""
    settings = table.settings
    plan, length = settings.plan, rotation_samples(settings)
    lead = plan.lead_in(length, length // 2)
    slots = list(islice(plan.slots(length + lead.zero_samples, lead.shift), 8 * n_blocks))
    copies = {Axis.X: FIRST_X_COPY, Axis.Y: FIRST_Y_COPY}
    plays = [(0, FIRST_ROTATION + 8)]
    plays += [(slot.start_sample, copies[slot.axis] + slot.shift) for slot in slots]
    plays += [(plan.entry_after(slots[-1], length // 2), FIRST_ROTATION + 24)]
    # The pulses act between the centres of the gates; outside, nothing is to be refocused.
    unitaries = {
        entry: propagator(table.waveform(entry), detuning_hz) for entry in {p[1] for p in plays}
    }
    total, now = np.eye(2, dtype=complex), 0
    for start, entry in plays:
        total = unitaries[entry] @ free(start - now, detuning_hz) @ total
        now = start + int(table.length_samples[entry])
    outside = free(-length / 2 - plan.gate_excess_samples, detuning_hz)
    return outside @ total @ outside


def detuned_infidelity(n_blocks: int, **changes) -> float:
    calibration = PulseCalibration.for_full_scale_rabi(FULL_SCALE_RABI_HZ)
    table = build_table(TableSettings(calibration=calibration, **changes))
    return max(
        infidelity(gate_blocks_gate(table, n_blocks, detuning_hz), np.eye(2))
        for detuning_hz in (-HYPERFINE_HZ, 0.0, HYPERFINE_HZ)
    )


@pytest.mark.parametrize("spacing", [24_102, 24_101, 24_096, 1921 * 8 + 3])
@pytest.mark.parametrize("n_blocks", [1, 2, 7])
def test_a_detuned_spin_is_refocused_at_the_next_gate(spacing, n_blocks):
    # A gate 8 samples off its place leaves 2 pi * 2.16 MHz * 3.3 ns = 45 mrad.
    rounding = (2 * np.pi * HYPERFINE_HZ * 8.5 / 2.4e9) ** 2 / 6
    assert detuned_infidelity(n_blocks, spacing_samples=spacing) < rounding + 2e-4


def test_without_shifted_copies_every_block_adds_an_error():
    exact = [detuned_infidelity(n, spacing_samples=24_102) for n in (1, 3)]
    rounded = [detuned_infidelity(n, spacing_samples=24_102, shifted_copies=1) for n in (1, 3)]
    assert max(exact) < 1e-3
    assert rounded[1] > 20 * max(exact)
