"""Three cores of an AWG with the same program: what each Mark connector carries.

The laboratory takes every signal from core 0, because the others do the same at the same sample.
Here all of them run, under the words of a whole batch of two nodes, and are compared.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from drivers.nv_setup import AWG_CORE, AWG_CORES, MARKS
from qnodeos.qdevice.instructions import Axis, enm, ent, ini, msr, sqg
from sequences.nv_seqc import ACKNOWLEDGE
from sequences.waveform_table import Marker
from sim.hdawg import Play, SimulatedHdawg
from sim.hdawg.timeline import Repeat
from sim.lab.node import LabNode
from tests.sim.lab_harness import Runner, Step, link_with, lone_laboratory, two_laboratories

CONNECTOR_OF = {
    "acknowledge": 0,
    Marker.PLAYED: 1,
    Marker.OPTICAL_PULSE: 2,
    Marker.DETECTION_GATE: 3,
    Marker.SPIN_PUMP: 4,
}
"""As docs/hardware.md has it."""
STEPS: list[Step] = [
    *(ini(), sqg(Axis.X, 16), sqg(Axis.Y, 5), 37, msr()),
    *(ent(), sqg(Axis.X, 3), 11, msr(), ent(), enm(), ini(), msr()),
]


class Recorded:
    """What core 0 of a node has done, before the laboratory takes it away."""

    def __init__(self, node: LabNode) -> None:
        self.plays: list[Play] = []
        self.edges: list[tuple[int, int]] = []
        self._core = node.awg.cores[AWG_CORE]
        self._take, self._collect = node._take_play, node._collect
        node._take_play = self._taken  # type: ignore[method-assign]
        node._collect = self._collected  # type: ignore[method-assign]

    def _taken(self, item: Play | Repeat) -> None:
        self.plays += [item] if isinstance(item, Play) else item.unrolled()
        self._take(item)

    def _collected(self) -> None:
        self.edges += self._core.trigger_edges
        self._collect()

    def changes(self, marker: Marker) -> list[tuple[int, int]]:
        """Of the level of a marker."""
        edges = []
        for play in self.plays:
            if play.waveform is not None and play.waveform.markers is not None:
                levels = np.pad(play.waveform.markers[: play.n_samples] >> marker & 1, 1)
                edges += [
                    (play.start_sample + int(at), int(levels[at + 1]))
                    for at in np.flatnonzero(np.diff(levels.astype(int)))
                ]
        return edges


def as_seen(plays: list[Play]) -> list[tuple[object, ...]]:
    return [
        (play.start_sample, play.n_samples, play.entry, play.levels, play.is_held, play.wave_index)
        for play in plays
        if play.waveform is not None
    ]


@pytest.fixture(scope="module")
def ran() -> tuple[Runner, list[Recorded], object]:
    """Two nodes, all of whose cores have run; their drivers are closed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.lab.build.LabNode", partial(LabNode, observed_cores=AWG_CORES))
        with two_laboratories(link_with(0.05)) as runner:
            recorded = [Recorded(each.lab_node) for each in runner.nodes]
            answers = runner.run(list(STEPS), list(STEPS))
            for each in runner.nodes:
                each.lab_node.run_awg(runner.sample)
    return runner, recorded, answers


def test_all_cores_play_the_same_on_the_same_sample(ran):
    runner, recorded, answers = ran
    assert any(answer.outcome.is_success for answer in answers[0] if answer.instruction == ent())
    for node, record in zip(runner.nodes, recorded, strict=True):
        awg = node.lab_node.awg
        assert len(as_seen(record.plays)) > 100
        for index in set(AWG_CORES) - {AWG_CORE}:
            core, own = awg.cores[index], awg.cores[AWG_CORE]
            plays = [
                play
                for play in core.player.timeline.plays()
                if play.start_sample <= record.plays[-1].start_sample
            ]
            assert as_seen(plays) == as_seen(record.plays)
            assert core.trigger_edges == record.edges
            for wave, words in own.words.items():
                assert np.array_equal(core.words[wave], words)


def test_every_mark_carries_its_signal(ran):
    runner, recorded, _ = ran
    for node, record in zip(runner.nodes, recorded, strict=True):
        awg = node.lab_node.awg
        until = record.plays[-1].stop_sample
        for marker in (Marker.OPTICAL_PULSE, Marker.DETECTION_GATE, Marker.SPIN_PUMP):
            expected = record.changes(marker)
            assert len(expected) >= 2
            assert awg.mark(CONNECTOR_OF[marker], 0, until) == expected
        # Core 0's plays are gone; its connectors carry what those of the others would.
        for signal in ("acknowledge", Marker.PLAYED):
            mark = MARKS[CONNECTOR_OF[signal]]
            assert mark.core == AWG_CORE
            write = awg.nodes.write
            write(f"/{awg.serial}/triggers/out/5/source", mark.source)
            expected = record.edges if signal == "acknowledge" else record.changes(Marker.PLAYED)
            assert len(expected) > 10
            assert awg.mark(5, 0, until + 10_000) == expected
        assert {word for _, word in record.edges} == {0, ACKNOWLEDGE}


def test_the_laboratory_need_not_run_the_cores_it_does_not_listen_to(ran):
    _, _, answers = ran
    with two_laboratories(link_with(0.05)) as runner:
        assert runner.run(list(STEPS), list(STEPS)) == answers
        awg = runner.node.awg
        assert all(awg.cores[core].is_running for core in AWG_CORES)
        with pytest.raises(ValueError, match="Mark 3 belongs to core 1, which is not observed"):
            awg.mark(2, 0, 1)


def test_the_signals_are_where_the_driver_says():
    with lone_laboratory() as runner:
        instruments, awg = runner.nodes[0].instruments, runner.node.awg
        assert awg.device_type == "HDAWG8"
        for connector, mark in MARKS.items():
            assert instruments.station.awg.marks[connector].source() == mark.source
            assert awg.mark_source(connector) == mark.source
            assert connector // 2 == mark.core
        shown = [awg.output_gains(core) for core in range(len(awg.cores))]
        assert shown == [(1.0, 1.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]


def test_a_level_goes_out_without_a_program():
    awg = SimulatedHdawg("dev8001")
    awg.nodes.write("/dev8001/triggers/out/7/source", "high")
    assert [awg.mark(connector, 5, 9) for connector in (6, 7)] == [[], [(5, 1)]]


def test_a_window_begins_with_the_level_that_was_there(ran):
    runner, recorded, _ = ran
    awg, edges = runner.node.awg, recorded[0].edges
    awg.nodes.write("/dev8001/triggers/out/5/source", "awg_trigger0")
    for (up, level), (down, _) in pairwise(edges[:7]):
        inside = awg.mark(5, up + 1, down)
        assert inside == ([(up + 1, 1)] if level else [])
