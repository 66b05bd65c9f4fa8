"""`qnodeos bench live-time`: real processes, few circuits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.cli import live_time
from qnodeos.cli.live_time import LiveTimeRun, measure

CIRCUITS = 4


@pytest.fixture(scope="module")
def run() -> LiveTimeRun:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="q") as directory:
        # Other tests run beside this one: nothing asks for a priority.
        realtime = {"tick_priority": 0, "policy_priority": 0, "lock_memory": False}
        patch.setattr(live_time, "LAB", {**live_time.LAB, "priority": 0})
        patch.setattr(live_time, "NODE", {**live_time.NODE, "realtime": realtime})
        patch.setattr(live_time, "PROGRAM_PRIORITY", 0)
        patch.setattr(live_time, "SETS", ((2, 2),))
        return measure(Path(directory), circuits_per_set=CIRCUITS, seed=1, prepared=True)


def test_every_circuit_has_its_share_of_software(run):
    (data,) = run.sets
    live = data.segments["live_time"]
    assert run.software.shape == live.shape == (CIRCUITS,)
    assert (run.software > 0).all()
    # Two gates and two readouts of 0.19 ms are no software.
    assert (run.software < live - 0.38).all()
    assert set(np.unique(data.outcome)) <= {0, 1}


def test_the_report_has_what_it_promises(run: LiveTimeRun, monkeypatch, tmp_path):
    slower = replace(run, software=run.software + 1)
    seen: list[dict[str, Any]] = []

    def measured(directory: Path, **options: Any) -> LiveTimeRun:
        seen.append(options)
        return run if options["prepared"] else slower

    monkeypatch.setattr(live_time, "measure", measured)
    path = tmp_path / "live.json"
    done = CliRunner().invoke(
        cli.app,
        ["bench", "live-time", "--circuits-per-set", "4", "--no-rehearse", "--json", str(path)],
    )
    assert done.exit_code == 0, done.output
    assert [(options["prepared"], options["rehearse"]) for options in seen] == [
        (True, False),
        (False, False),
    ]
    result = json.loads(path.read_text("utf-8"))
    assert {"p50", "p90", "max"} == set(result["software_ms"]) == set(result["live_time_ms"])
    assert result["software_ms"]["p50"] == pytest.approx(np.median(run.software), abs=1e-3)
    assert result["without_prepared"]["software_ms"]["p50"] == pytest.approx(
        np.median(run.software) + 1, abs=1e-3
    )
    assert "live_time" in result["segments_ms"]
    assert result["circuits"] == CIRCUITS
    assert not result["rehearse"]
    assert "3.48 (mean)" in done.output
