"""Registers with several links in the laboratory in real time: a row of three nodes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.assembly.description import DeviceNetwork
from qnodeos.assembly.registers import RegisterDevices, build_registers
from qnodeos.qdevice import instructions
from qnodeos.qdevice.instructions import Axis
from qnodeos.qdevice.outcomes import OUTCOME_OF_HERALD, BellState, Outcome
from tests.service.realtime_bench import (
    Record,
    Step,
    run_directly,
    run_in_real_time,
    run_late,
)

NODES = ("alice", "repeater", "bob")
WINDOW = 20
GRACE = 15


def row(seed: int, *, mocked: bool, noiseless: bool = True) -> RegisterDevices:
    """A generic node at each end, and an NV centre with two memories between them."""
    link = {
        "attempts_per_batch": 100,
        "attempt_period_ns": 10_000,
        "sync_window_ticks": WINDOW,
        "mocked": mocked,
        "protocol": {"kind": "perfect", "success_probability": 0.007 if mocked else 0.5},
    }
    network = DeviceNetwork.model_validate(
        {
            "nodes": {
                "alice": {"device": {"kind": "generic", "qubits": 2}},
                "repeater": {"device": {"kind": "nv", "memories": 2, "noiseless": noiseless}},
                "bob": {"device": {"kind": "generic", "qubits": 2}},
            },
            "links": [
                {"between": ["alice", "repeater"], "link": link},
                {"between": ["bob", "repeater"], "link": link},
            ],
        }
    )
    return build_registers(network, seed)


INSTRUCTIONS = st.sampled_from(
    [
        instructions.ini(0),
        instructions.sqg(Axis.X, 8, 0),
        instructions.sqg(Axis.Y, 3, 1, 4),
        instructions.tqg(Axis.X, 8, 0, 1),
        instructions.mov(0, 1),
        instructions.esw(0, 1),
        instructions.msr(0),
        instructions.ent(0, 0),
        instructions.ent(0, 0),
        instructions.ent(1, 0),
        instructions.ent(1, 0),
        instructions.enm(0, 0),
    ]
)
SCRIPT = st.lists(st.tuples(st.integers(0, 2 * WINDOW), INSTRUCTIONS), max_size=8)
SCRIPTS = st.fixed_dictionaries(dict.fromkeys(NODES, SCRIPT))
SEEDS = st.integers(0, 1_000)


@settings(max_examples=60)
@given(scripts=SCRIPTS, seed=SEEDS)
def test_looking_ahead_gives_what_every_tick_gives(scripts, seed):
    # Mocked pairs, for the reason that test_realtime_lab gives.
    direct = run_directly(row(seed, mocked=True, noiseless=False).devices, scripts)
    served = run_in_real_time(row(seed, mocked=True, noiseless=False).devices, scripts)
    assert served == direct


@settings(max_examples=60)
@given(scripts=SCRIPTS, seed=SEEDS, data=st.data())
def test_commands_that_come_late_within_the_grace_change_nothing(scripts, seed, data):
    direct = run_directly(row(seed, mocked=True).devices, scripts)
    responses = run_late(
        row(seed, mocked=True).devices,
        direct.commands,
        GRACE,
        lambda: data.draw(st.integers(0, GRACE - 1), label="lag"),
    )
    assert responses == direct.responses


def outcomes(record: Record, node: str) -> list[Outcome]:
    return [response.outcome for _, response in record.outcomes[node]]


@pytest.mark.parametrize("seed", range(8))
@settings(max_examples=5)
@given(gaps=st.fixed_dictionaries(dict.fromkeys(NODES, st.integers(0, 60))))
def test_ends_share_the_state_that_the_swap_between_them_names(seed, gaps):
    system = row(seed, mocked=False)
    scripts: dict[str, list[Step]] = {
        end: [(0, instructions.ent(0, 0)), (gaps[end], instructions.msr(0))]
        for end in ("alice", "bob")
    }
    scripts["repeater"] = [
        (0, instructions.ent(0, 0)),
        (0, instructions.mov(0, 1)),
        (0, instructions.ent(1, 0)),
        (gaps["repeater"], instructions.esw(1, 0)),
    ]
    # Late enough for the repeater's second request, too late for its first.
    scripts["bob"][0] = (WINDOW + 4, instructions.ent(0, 0))
    record = run_in_real_time(system.devices, scripts)
    first, _, second, swapped = outcomes(record, "repeater")
    heralds = {outcome: bell for bell, outcome in OUTCOME_OF_HERALD.items()}
    flips = [heralds[each] in (BellState.PSI_PLUS, BellState.PSI_MINUS) for each in (first, second)]
    flips.append(heralds[swapped] in (BellState.PSI_PLUS, BellState.PSI_MINUS))
    bits = [outcomes(record, end)[-1] is Outcome.SUCCESS_ONE for end in ("alice", "bob")]
    assert (bits[0] != bits[1]) is (sum(flips) % 2 == 1)
