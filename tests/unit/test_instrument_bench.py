"""The bench of instruments, on devices that answer from a script: failures are never data."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from calibration import instrument_bench
from calibration.errors import CalibrationError
from calibration.instrument_bench import (
    BATCHES_MAX,
    ArrivalSetup,
    InstrumentPair,
    Line,
    TickClock,
)
from drivers.nv import NV_CAPABILITIES
from qnodeos.qdevice.endpoint import FrameSlave
from qnodeos.qdevice.instructions import Axis, Opcode, sqg
from qnodeos.qdevice.outcomes import BellState, Outcome

PLUS = Outcome.SUCCESS_PSI_PLUS
FAILURES = [
    outcome for outcome in Outcome if not outcome.is_success and "ENTANGLEMENT" not in outcome.name
]


class ScriptedDevice:
    """Answers every instruction in the next frame: by its opcode, the last answer for ever."""

    capabilities = NV_CAPABILITIES

    def __init__(self, **answers: list[Outcome]) -> None:
        self._slave = FrameSlave()
        self._answers = {Opcode[name]: list(given) for name, given in answers.items()}
        self.executed: list[Opcode] = []

    def exchange(self, tick: int, frame: int) -> int:
        response = self._slave.outgoing(tick)
        instruction = self._slave.incoming(frame)
        if instruction is not None:
            self.executed.append(instruction.opcode)
            answers = self._answers.get(instruction.opcode, [Outcome.SUCCESS_ZERO])
            self._slave.complete(answers.pop(0) if len(answers) > 1 else answers[0])
        return response


@pytest.fixture(autouse=True)
def period(monkeypatch):
    monkeypatch.setattr(instrument_bench, "_period_ns", lambda bench: 5_500.0)


def pair_of(
    client: ScriptedDevice,
    server: ScriptedDevice,
    arrivals: ArrivalSetup | None = None,
    **more: Any,
) -> InstrumentPair:
    clock = TickClock()
    count = itertools.count(step=7)
    heralding = SimpleNamespace(attempts=lambda: next(count), **more)
    instruments = SimpleNamespace(
        station=SimpleNamespace(heralding=heralding),
        settings=SimpleNamespace(attempts_per_batch=10),
    )
    benches: list[Any] = [
        SimpleNamespace(name=name, line=Line(device, clock), instruments=instruments)
        for name, device in (("client", client), ("server", server))
    ]
    return InstrumentPair(benches[0], benches[1], clock, arrivals)


def test_pairs_are_made_until_there_are_enough():
    sync, none = Outcome.ENTANGLEMENT_SYNC_FAILURE, Outcome.ENTANGLEMENT_FAILURE
    client = ScriptedDevice(ENT=[sync, none, PLUS], MSR=[Outcome.SUCCESS_ONE])
    server = ScriptedDevice(ENT=[sync, none, PLUS])
    shots = pair_of(client, server).pairs([sqg(Axis.X, 8)], [], 2)
    assert shots.heralds.tolist() == [BellState.PSI_PLUS] * 2
    assert shots.bits.tolist() == [[1, 0]] * 2
    assert shots.attempts.tolist() == [7, 7]
    assert client.executed.count(Opcode.ENT) == server.executed.count(Opcode.ENT) == 4


@pytest.mark.parametrize("failed", ["SQG", "MSR"])
@pytest.mark.parametrize("outcome", FAILURES, ids=lambda outcome: outcome.name)
def test_a_failed_gate_or_readout_is_no_zero(failed, outcome):
    server = ScriptedDevice(ENT=[PLUS], **{failed: [outcome]})
    pair = pair_of(ScriptedDevice(ENT=[PLUS]), server)
    with pytest.raises(CalibrationError, match=rf"{failed}.* was answered {outcome.name}"):
        pair.pairs([], [sqg(Axis.X, 8)], 1)


@pytest.mark.parametrize("outcome", FAILURES, ids=lambda outcome: outcome.name)
def test_only_batches_without_a_herald_are_repeated(outcome):
    client = ScriptedDevice(ENT=[Outcome.ENTANGLEMENT_SYNC_FAILURE])
    pair = pair_of(client, ScriptedDevice(ENT=[outcome]))
    with pytest.raises(CalibrationError, match=rf"server: .* was answered {outcome.name}"):
        pair.pairs([], [], 1)
    assert client.executed == [Opcode.ENT]


def test_nodes_that_disagree_and_batches_without_end(monkeypatch):
    other = ScriptedDevice(ENT=[Outcome.SUCCESS_PSI_MINUS])
    with pytest.raises(
        CalibrationError, match=r"disagree .* SUCCESS_PSI_PLUS and SUCCESS_PSI_MINUS"
    ):
        pair_of(ScriptedDevice(ENT=[PLUS]), other).pairs([], [], 1)
    assert BATCHES_MAX > 3
    monkeypatch.setattr(instrument_bench, "BATCHES_MAX", 3)
    dark = [ScriptedDevice(ENT=[Outcome.ENTANGLEMENT_FAILURE]) for _ in range(2)]
    with pytest.raises(CalibrationError, match="no herald in 3 batches"):
        pair_of(dark[0], dark[1]).pairs([], [], 1)
    assert dark[0].executed == [Opcode.ENT] * 3


def test_the_shutter_opens_even_if_the_window_cannot_be_moved_back():
    blocked: list[str | None] = []
    windows: list[int] = []

    def window(*value: int) -> int:
        windows.extend(value)
        if value:
            raise OSError("the line is dead")
        return 12

    ignored = SimpleNamespace(
        start_channels=id, click_channels=id, bin_width_ps=id, bins=id, histogram_during=id
    )
    tagger: Any = ignored
    setup = ArrivalSetup(tagger, blocked.append, {"client": 0.0, "server": 0.0})
    pair = pair_of(ScriptedDevice(), ScriptedDevice(), setup, window_delay_ns=window)
    with pytest.raises(OSError, match="dead"):
        pair.arrival_histogram("client", 10)
    assert windows == [2750, 12]
    assert blocked == ["server", None]
