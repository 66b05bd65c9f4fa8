"""The measurement of durations ends, whatever the nodes answer to ENT."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from calibration.errors import CalibrationError
from calibration.instrument_bench import TickClock
from qnodeos.qdevice.endpoint import Response
from qnodeos.qdevice.outcomes import Outcome
from sim.lab import durations


def probe(*answers: Outcome | None) -> Any:
    given = iter(answers)

    def exchange() -> Response | None:
        outcome = next(given, None)
        return None if outcome is None else Response(outcome, None)

    line = SimpleNamespace(submit=lambda instruction: None, exchange=exchange)
    return SimpleNamespace(line=line, clock=TickClock())


def test_both_clocks_stop_after_the_later_herald():
    plus = Outcome.SUCCESS_PSI_PLUS
    probes = [probe(None, plus), probe(None, None, None, plus)]
    durations._entangle(probes)
    assert [each.clock.tick for each in probes] == [4, 4]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ([], "SUCCESS_PSI_PLUS and nothing within 5 ticks"),
        ([Outcome.ENTANGLEMENT_FAILURE], "and ENTANGLEMENT_FAILURE"),
        ([Outcome.SUCCESS_ONE], "and SUCCESS_ONE"),
    ],
)
def test_no_herald_is_an_error(monkeypatch, second, message):
    monkeypatch.setattr(durations, "PATIENCE_TICKS", 5)
    with pytest.raises(CalibrationError, match=message):
        durations._entangle([probe(Outcome.SUCCESS_PSI_PLUS), probe(*second)])
