"""What `qnodeos calibrate` opens is closed again, and lost ticks are reported."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from calibration.file import NodeCalibration
from instruments.errors import IncompatibleInstrument
from qnodeos.cli import benches
from qnodeos.cli.benches import Benches, open_benches
from qnodeos.cli.calibrate import _report_lost_ticks
from qnodeos.errors import DeviceError
from sim.lab import bench as lab_bench
from sim.nv.physics import NVPhysics


def test_a_station_whose_instruments_do_not_fit_is_closed(mocker, tmp_path):
    link = mocker.patch.object(benches, "open_spi").return_value
    station = mocker.patch.object(benches, "open_station").return_value
    mocker.patch.object(benches, "NVInstruments", side_effect=IncompatibleInstrument("no T12"))
    with (
        pytest.raises(DeviceError, match="no T12"),
        open_benches(
            "ssro",
            "client",
            seed=1,
            drawn=False,
            calibrations=tmp_path,
            station=tmp_path / "station.yaml",
            spi="0.0",
        ),
    ):
        pass
    station.close.assert_called_once_with()
    link.close.assert_called_once_with()


def test_a_simulation_whose_bench_cannot_be_made_is_closed(mocker):
    simulation = mocker.patch.object(lab_bench, "SimulatedLaboratory").return_value
    simulation.nodes = {"client": mocker.Mock()}
    mocker.patch.object(lab_bench, "InstrumentBench", side_effect=IncompatibleInstrument("no"))
    with pytest.raises(IncompatibleInstrument):
        lab_bench.SimulatedBench(
            {"client": NVPhysics()}, {"client": NodeCalibration(node="client")}
        )
    simulation.close.assert_called_once_with()


@pytest.mark.parametrize(("lost", "text"), [(0, ""), (31, "31 ticks were lost")])
def test_lost_ticks_are_reported(capsys, lost, text):
    pacer: Any = SimpleNamespace(lost_ticks=lost)
    _report_lost_ticks(Console(), Benches({}, pacer=pacer))
    _report_lost_ticks(Console(), Benches({}))
    out = capsys.readouterr().out
    assert out.startswith(text)
    assert bool(out) == bool(text)
