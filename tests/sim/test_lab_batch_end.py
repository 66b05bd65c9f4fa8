"""The last attempts of a batch: heralded or not, both nodes see the same."""

from __future__ import annotations

import math
import random

import pytest

from instruments.nv_controller import DIO_MODULE
from qnodeos.qdevice.instructions import ent
from qnodeos.qdevice.outcomes import Outcome
from sequences.waveform_table import FIRST_ATTEMPT, READOUT
from tests.sim.lab_harness import (
    Runner,
    bring_up,
    link_with,
    node_settings,
    record_plays,
    two_laboratories,
)


class Chosen(random.Random):
    """Makes the heralding station herald the n-th attempt from now; its chance is 1 %."""

    chance = 0.01

    def __init__(self, number: int) -> None:
        super().__init__(1)
        self.uniforms = [-math.expm1((number - 0.5) * math.log1p(-self.chance))]

    def random(self) -> float:
        return self.uniforms.pop() if self.uniforms else super().random()


@pytest.fixture(scope="module", params=[30, 31])
def ending(request):
    """Batches of so many attempts.

    A batch ends on a whole microsecond. With 30 attempts the word that ends it goes out before
    the herald of the last one is there, with 31 the herald is there first.
    """
    with two_laboratories(link_with(Chosen.chance), settings=node_settings(request.param)) as it:
        yield it


def batch_of(runner: Runner) -> int:
    """How many attempts the first node makes in a batch."""
    settings = runner.nodes[0].instruments.settings
    assert settings is not None
    return settings.attempts_per_batch


def last_word(runner: Runner) -> int:
    """The entry that the ADwin has last told the AWG to play."""
    return 0xFF & runner.node._hardware.output_word(DIO_MODULE)


@pytest.mark.parametrize("left", [29, 28, 15, 1, 0])
def test_any_attempt_of_a_batch_can_be_heralded(ending, left):
    number = batch_of(ending) - left
    station = ending.lab.laboratory.station
    station._rng, station._remaining = Chosen(number), 0
    before = station.attempts
    recorded = record_plays(ending.node)
    first, second = ending.tell(ent(), ent())
    assert first.outcome is second.outcome
    assert first.outcome.is_success
    assert first.answered == second.answered
    assert station.attempts - before == number
    bring_up(ending.node)
    attempts = [sample for sample, entry in recorded if entry == FIRST_ATTEMPT]
    assert len(attempts) == number
    # Decoupled from then on, and the readout word, if it was sent, was not played.
    is_late = batch_of(ending) == 30 and not left
    assert last_word(ending) == (READOUT if is_late else FIRST_ATTEMPT)
    assert READOUT not in [entry for sample, entry in recorded if sample > attempts[0]]
    del ending.node._take_play


@pytest.mark.parametrize("more", [1, 2])
def test_no_attempt_follows_the_batch(ending, more):
    number = batch_of(ending) + more
    station = ending.lab.laboratory.station
    station._rng, station._remaining = Chosen(number), 0
    before = station.attempts
    recorded = [record_plays(node.lab_node) for node in ending.nodes]
    answers = ending.tell(ent(), ent())
    assert {answer.outcome for answer in answers} == {Outcome.ENTANGLEMENT_FAILURE}
    ending.run([50], [50])
    assert station.attempts - before == batch_of(ending)
    for node, plays in zip(ending.nodes, recorded, strict=True):
        bring_up(node.lab_node)
        attempts = [sample for sample, entry in plays if entry == FIRST_ATTEMPT]
        assert len(attempts) == batch_of(ending)
        [stopped] = [sample for sample, entry in plays if entry == READOUT and sample > attempts[0]]
        # Within a period of the last one.
        assert 0 < stopped - attempts[-1] < attempts[1] - attempts[0]
        assert not [sample for sample, _ in plays if sample > stopped]
        del node.lab_node._take_play
    # The herald that was due falls into the next batch.
    assert ending.tell(ent(), ent())[0].outcome.is_success
    assert station.attempts - before == number
