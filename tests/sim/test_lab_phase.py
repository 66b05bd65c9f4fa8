"""The QNPUs of two nodes need not be in step: attempts still start on the same sample."""

from __future__ import annotations

import pytest

from instruments.nv_controller import TICK_EVENTS
from qnodeos.qdevice.endpoint import Response
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction, ent, ini, sqg
from sequences.waveform_table import FIRST_ATTEMPT
from tests.sim.lab_harness import (
    Lockstep,
    Runner,
    link_with,
    node_settings,
    record_plays,
    two_laboratories,
)


class OutOfStep:
    """Exchanges the frames of the second node some events after those of the first."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.lockstep = Lockstep(runner.lab)
        self.begins = runner.lab.laboratory.zero_event + runner.tick * TICK_EVENTS
        self.lockstep.event = runner.node.event

    def tick(self, shift: int) -> list[Response | None]:
        """One frame each."""
        responses: list[Response | None] = []
        for node, master, later in zip(
            self.runner.nodes, self.runner.masters, (0, shift), strict=True
        ):
            self.lockstep.run_to(self.begins + later - 1)
            ready = node.lab_node._response
            node.lab_node.receive(master.outgoing())
            responses.append(None if ready is None else master.incoming(ready[1]))
        self.begins += TICK_EVENTS
        return responses

    def tell(self, instruction: PhysicalInstruction, shift: int) -> list[Response]:
        """Have both nodes execute an instruction."""
        for master in self.runner.masters:
            master.submit(instruction)
        answers: dict[int, Response] = {}
        while len(answers) < 2:
            for index, response in enumerate(self.tick(shift)):
                if response is not None:
                    answers[index] = response
        return [answers[0], answers[1]]


@pytest.fixture(scope="module")
def wires():
    settings = node_settings(attempts=5)
    with two_laboratories(link_with(0.2), settings=settings, plain=True) as runner:
        yield OutOfStep(runner)


@pytest.mark.parametrize("shift", range(10))
def test_attempts_start_on_the_same_sample_whenever_frames_come(wires, shift):
    for smaller in range(shift + 1):
        # The program follows a few events at a time.
        wires.tick(smaller)
    recorded = [record_plays(node.lab_node) for node in wires.runner.nodes]
    for gate in (ini(), sqg(Axis.X, 8)):
        assert all(response.outcome.is_success for response in wires.tell(gate, shift))
    first, second = wires.tell(ent(), shift)
    wires.tick(shift)
    attempts = [[at for at, entry in plays if entry == FIRST_ATTEMPT] for plays in recorded]
    for node in wires.runner.nodes:
        del node.lab_node._take_play
    assert first == second
    assert attempts[0] == attempts[1]
    assert 1 <= len(attempts[0]) <= 5
