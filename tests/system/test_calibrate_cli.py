"""`qnodeos calibrate` and `qnodeos timing`: results, files, messages and exit codes."""

from __future__ import annotations

import json
import math
import sys

import pytest
from scipy.stats import chi2, norm

from benchmarks.coverage import deviations
from calibration.dataset import read_run
from calibration.file import calibration_path, load_calibration
from calibration.ion_file import IonCalibration
from qnodeos.cli.calibrate import NAMES

Z = 4.5
QUICK_SSRO = ("--set", "shots=400")
QUICK_T_COH = ("--set", "shots=150", "--set", "times_ms=[0, 3, 6, 10, 15, 22]")


def test_every_measurement_has_its_name_on_the_command_line():
    from calibration.registry import MEASUREMENTS

    assert set(NAMES) == set(MEASUREMENTS)


def test_readout_is_found_recorded_and_kept(command, tmp_path):
    path = tmp_path / "new" / "ssro.json"
    done = command(
        "calibrate", "ssro", *QUICK_SSRO, "--truth", "drawn", "--seed", "4",
        "--json", str(path), "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(path.read_text("utf-8"))
    assert result["simulated"] is True
    assert result["seed"] == 4
    assert result["nodes"] == ["server"]
    for name in ("f0", "f1"):
        found, true = result["values"][name], result["truth"][name]
        assert abs(found["value"] - true) < Z * found["sigma"]
    kept = load_calibration(calibration_path(tmp_path / "out", "server"), "server")
    assert kept.revision == 1
    assert kept.f0.value == result["values"]["f0"]["value"]
    assert kept.f0.source == result["source"]
    run = read_run(tmp_path / "out" / "calibration.db", result["run_id"])
    assert run.data.rows == 800
    assert run.snapshot
    assert list((tmp_path / "out" / "plots").glob("*.png"))
    # The next measurement starts from what was found.
    again = command("calibrate", "ssro", *QUICK_SSRO, "--truth", "drawn", "--seed", "4",
                    "--out", str(tmp_path / "out"), "--quiet")  # fmt: skip
    assert again.code == 0, again.err
    assert load_calibration(calibration_path(tmp_path / "out", "server"), "server").revision == 2


def test_a_trapped_ion_node_is_calibrated(command, tmp_path):
    path = tmp_path / "rabi.json"
    done = command(
        "calibrate", "ion-rabi", "--set", "shots=20", "--set", "n_points=20", "--truth", "drawn",
        "--seed", "4", "--json", str(path), "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "Could not" not in done.err
    result = json.loads(path.read_text("utf-8"))
    assert result["nodes"] == ["ion"]
    found, true = result["values"]["pi_ns"], result["truth"]["pi_ns"]
    assert abs(found["value"] - true) < Z * found["sigma"]
    kept = load_calibration(calibration_path(tmp_path / "out", "ion"), "ion", IonCalibration)
    assert kept.pi_ns.value == found["value"]
    assert kept.carrier_hz.source == "the simulated truth"


@pytest.mark.parametrize(("copies", "low_ms", "high_ms"), [(16, 12.0, 14.0), (1, 0.0, 4.0)])
def test_shifted_copies_are_what_keeps_the_coherence(command, tmp_path, copies, low_ms, high_ms):
    path = tmp_path / "t_coh.json"
    times = () if copies == 1 else ("--set", "times_ms=[0, 3, 6, 10, 15, 22]")
    done = command(
        "calibrate", "t-coh", "--set", "shots=400" if copies == 16 else "shots=60", *times,
        "--shifted-copies", str(copies), "--json", str(path), "--out", str(tmp_path),
    )  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(path.read_text("utf-8"))
    assert result["shifted_copies"] == copies
    assert low_ms - result["sigma"] < result["t_coh_ms"] < high_ms + result["sigma"]
    assert 0 < result["sigma"] < 0.1 * high_ms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["t_coh"], "no measurement 't_coh'"),
        (["ssro", "--set", "shot=3"], "one of shots"),
        (["ssro", "--set", "shots=many"], "must be a number"),
        (["ssro", "--set", "shots=0"], "shots"),
        (["cr", "--set", "shots=1.5"], "shots is 1.5 and must be an integer"),
        (["cr", "--set", "shots=true"], "shots is True and must be an integer"),
        (["cr", "--set", "shots=-3"], "shots is -3 and must lie in 1.."),
        (["t-coh", "--set", "times_ms=5"], "times_ms is 5 and must be a list"),
        (["t-coh", "--set", "times_ms=[]"], "times must lie in"),
        (["t-coh", "--set", "times_ms=[1, true]"], "must be a list of numbers"),
        (["resonance", "--set", "span_hz=0"], "span_hz is 0 and must be positive"),
        (["fidelity-alpha", "--set", "alphas=[0.1]"], "use 3 or more"),
        (["fidelity-alpha", "--set", "alphas=[0.1,0.2,1.5]"], "must lie between 0 and 1"),
        (["readout-correction", "--set", "initialisation_error=0.5"], "less than 0.5"),
        (["ssro", "--shifted-copies", "16"], "only t-coh"),
        (["t-coh", "--shifted-copies", "3"], "must be 16, 8, 4, 2 or 1"),
        (["all", "--set", "shots=3"], "takes no settings"),
        (["ion-rabi", "--node", "client"], "measured on a trapped-ion node, and client is none"),
        (["cr", "--node", "ion"], "measured on an NV node, and ion is none"),
        (["ion-detection", "--set", "shots=0"], "shots is 0 and must lie in 1.."),
        (["ssro", "--node", "relay"], "relay"),
        (["fidelity-alpha", "--station", "station.yaml", "--spi", "0.0"], "needs two nodes"),
        (["ssro", "--station", "station.yaml"], "--station needs --spi BUS.DEVICE"),
        (["ssro", "--spi", "0.0"], "no SPI interface"),
        (["ssro", "--station", "s.yaml", "--spi", "0.0", "--truth", "drawn"], "only simulated"),
        (["ssro", "--station", "s.yaml", "--spi", "0.0", "--seed", "1"], "only simulated"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_made(command, tmp_path, arguments, message):
    done = command("calibrate", *arguments, "--out", str(tmp_path / "out"))
    assert done.code == 2
    # Typer puts its messages in a box.
    assert message in " ".join(done.err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_result_that_cannot_be_written_is_refused_before_anything_is_made(command, tmp_path):
    for json_path in ("/proc/x.json", str(tmp_path), str(tmp_path / "no" / "such.d" / "x.json")):
        done = command("calibrate", "ssro", "--out", str(tmp_path / "out"), "--json", json_path)
        assert done.code == 2
        assert f"{json_path}: cannot write the result there: " in done.err
        assert done.err.endswith("; choose another --json\n")
    assert not (tmp_path / "out").exists()


def test_a_missing_package_names_the_extra(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmfit", None)
    for name in [name for name in sys.modules if name.startswith("calibration.")]:
        monkeypatch.delitem(sys.modules, name)
    done = command("calibrate", "ssro", "--out", str(tmp_path))
    assert done.code == 2
    assert "needs the package lmfit; install the extra 'lab'" in done.err


def test_a_calibration_that_cannot_be_found_leaves_the_file_alone(command, tmp_path):
    done = command("calibrate", "ssro", "--set", "shots=20", "--out", str(tmp_path))
    assert done.code == 1
    assert "the data are kept as run 1" in done.err
    assert not calibration_path(tmp_path, "server").exists()


def test_the_durations_are_those_of_the_behavioural_device(command):
    from sim.nv_timing import NVTiming

    done = command("timing", "--json", "--seed", "3")
    assert done.code == 0, done.err
    measured, default = json.loads(done.out), NVTiming().model_dump()
    assert measured.keys() == default.keys()
    for name, value in measured.items():
        if name == "herald_lag_ns":
            # A mean over 60 heralds whose phase within a tick of 10 us is uniform.
            assert abs(value - default[name]) < Z * 10_000 / math.sqrt(12 * 60)
        elif name == "dd_lead_ns":
            # The sweep of phases is 0.34 us fine, and times are whole microseconds.
            assert abs(value - default[name]) <= 1_340
        else:
            assert value == default[name], name


SEEDS = range(1, 11)
HONEST = {"ssro": {"shots": 1000}, "rabi": {"shots": 100}, "fidelity-alpha": {"pairs": 30}}


@pytest.mark.parametrize("name", HONEST)
def test_calibrations_miss_the_truth_by_as_much_as_they_say(name):
    """Both too small and too large uncertainties fail, at z = 4.5 each.

    `python -m benchmarks.coverage` counts, with more shots, how often the truth is covered.
    """
    found = [d for seed in SEEDS for d in deviations(name, seed, HONEST[name]).values()]
    squares = sum(each**2 for each in found)
    low, high = chi2.ppf(norm.cdf((-Z, Z)), len(found))
    assert low < squares < high, f"{squares / len(found):.2f} per value"
    assert max(map(abs, found)) < Z
