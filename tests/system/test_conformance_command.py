"""`qnodeos conformance`: what it reports, and that a broken system does not pass."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from drivers.generic import GenericDriver
from drivers.nv import NVDriver
from qnodeos.applications.conformance import suite
from qnodeos.applications.conformance.catalogue import STEP, SUBJECTS, installed, is_exact
from qnodeos.applications.conformance.suite import DEVICES, Case, Finding, examine, observe, report
from qnodeos.qdevice.instructions import Axis, Opcode
from qnodeos.qdevice.outcomes import BellState
from tests.system.watched_runs import Watcher

FEW = 6
FIELDS = {"name", "device", "passed", "criterion", "detail"}


@pytest.fixture
def few_runs(monkeypatch):
    """Fewer runs than the criteria need: enough to see what is wrong always, not now and then."""
    few = {subject.name: replace(subject, runs=FEW) for subject in SUBJECTS}
    monkeypatch.setattr(suite, "_BY_NAME", few)


@pytest.mark.usefixtures("few_runs")
def test_every_installed_application_is_judged_on_both_devices(command, tmp_path):
    path = tmp_path / "conformance.json"
    done = command("conformance", "--workers", "1", "--seed", "3", "--json", str(path))
    assert "simulated" in done.out
    found = json.loads(path.read_text("utf-8"))
    assert set(found) == {"applications", "passed", "failed", "complete"}
    assert found["complete"] is True
    assert all(set(entry) == FIELDS for entry in found["applications"])
    assert {(entry["name"], entry["device"]) for entry in found["applications"]} == {
        (name, device) for name in installed() for device in DEVICES
    }
    failed = {entry["name"] for entry in found["applications"] if not entry["passed"]}
    # So few games cannot refute that they were won without entanglement.
    assert failed == {"apps/chsh", "qne_apps/chsh"}
    assert done.code == 1
    assert "FAILED" in done.out
    assert (found["passed"], found["failed"]) == (len(found["applications"]) - 4, 4)


@pytest.mark.usefixtures("few_runs")
def test_what_passes_gives_exit_code_0(command):
    done = command("conformance", "--only", "dist_cnot", "--workers", "1")
    assert done.code == 0, done.out + done.err
    assert "4 passed, 0 failed" in done.out


@pytest.mark.usefixtures("few_runs")
def test_what_is_found_depends_on_the_seed_alone(command, tmp_path):
    def run(name: str, *arguments: str) -> object:
        path = tmp_path / name
        place = "apps/link_layer_md", "--device", "nv", "--json", str(path), "--quiet"
        done = command("conformance", "--only", *place, *arguments)
        assert done == (0, "", "")
        return json.loads(path.read_text("utf-8"))

    alone = run("one.json", "--seed", "1", "--workers", "1")
    assert alone == run("two.json", "--seed", "1", "--workers", "2")
    assert alone != run("three.json", "--seed", "2", "--workers", "1")


def test_more_runs_than_the_criterion_needs_can_be_asked_for():
    case = Case("apps/multiple_files", "generic", seed=1, runs=7)
    assert examine(case).detail.endswith("7 of 7")
    assert Case("apps/multiple_files", "generic", seed=1, runs=1).total_runs == 5


def test_an_application_that_does_not_exist_is_refused_by_name(command):
    done = command("conformance", "--only", "teleprot")
    assert done.code == 2
    assert "teleprot" in done.err
    assert "apps/teleport" in done.err


def test_an_application_without_a_criterion_has_not_passed(monkeypatch):
    finding = examine(Case("apps/new", "generic", seed=1))
    assert not finding.passed
    assert finding.criterion == suite.NO_CRITERION
    monkeypatch.setattr(suite, "installed", lambda: {"apps/new": None})
    assert "apps/new" in {case.name for case in suite.cases("nv", None, seed=1, runs=0)}


def test_findings_are_counted_and_ordered():
    findings = [Finding("b", "nv", True, "", ""), Finding("a", "nv", False, "", "")]
    found = report(findings)
    assert (found["passed"], found["failed"]) == (1, 1)
    assert [entry["name"] for entry in found["applications"]] == ["a", "b"]


# --- broken systems -------------------------------------------------------------------

two_qubit_gate = GenericDriver.two_qubit_gate
correct = GenericDriver.correct
nv_rotate = NVDriver.rotate
nv_measure = NVDriver.measure


def without_its_last_instruction(self, mnemonic, first, second):
    return two_qubit_gate(self, mnemonic, first, second)[:-1]


def without_correction_of_psi_minus(self, state, qubit):
    return () if state is BellState.PSI_MINUS else correct(self, state, qubit)


def takes_y_for_x(self, axis, numerator, exponent, qubit):
    return nv_rotate(self, Axis.Y if axis is Axis.X else axis, numerator, exponent, qubit)


def turns_before_it_measures(self, qubit):
    return (*nv_rotate(self, Axis.X, 1, 0, qubit), *nv_measure(self, qubit))


BROKEN: list[tuple[type, str, Callable[..., Any], str, list[str]]] = [
    (
        GenericDriver,
        "two_qubit_gate",
        without_its_last_instruction,
        "generic",
        ["apps/teleport", "apps/blind_rotation", "qne_apps/dist_cnot"],
    ),
    (
        GenericDriver,
        "correct",
        without_correction_of_psi_minus,
        "generic",
        ["apps/bb84", "apps/link_layer_ck", "apps/three_nodes", "sdk_scripts/epr"],
    ),
    (
        NVDriver,
        "rotate",
        takes_y_for_x,
        "nv",
        ["qne_apps/teleport", "qne_apps/blind_computation", "apps/blind_grover"],
    ),
    (NVDriver, "measure", turns_before_it_measures, "nv", ["apps/magic_square"]),
]


@pytest.mark.usefixtures("few_runs")
@pytest.mark.parametrize(
    ("driver", "method", "wrong", "device", "names"),
    BROKEN,
    ids=[case[2].__name__ for case in BROKEN],
)
def test_a_driver_with_a_wrong_gate_is_noticed(monkeypatch, driver, method, wrong, device, names):
    for name in names:
        assert examine(Case(name, device, seed=1)).passed, name
    monkeypatch.setattr(driver, method, wrong)
    for name in names:
        assert not examine(Case(name, device, seed=1)).passed, name


# --- bugs of the applications themselves ----------------------------------------------


def test_the_raw_key_of_bb84_is_not_sifted():
    # The application keeps the bits of pairs that its two ends measured in different bases, so
    # that the keys differ; that of qne_apps/qkd, the same program otherwise, does not.
    keys = {}
    for name in ("apps/bb84", "qne_apps/qkd"):
        subject = next(subject for subject in SUBJECTS if subject.name == name)
        case = Case(name, "generic", seed=1)
        seen = observe(subject, case, {role: {"num_bits": 64} for role in ("alice", "bob")}, 0)
        keys[name] = seen.results["alice"]["raw_key"], seen.results["bob"]["raw_key"]
    mine, theirs = keys["qne_apps/qkd"]
    assert mine == theirs
    mine, theirs = keys["apps/bb84"]
    assert len(mine) == len(theirs) == 48
    assert mine != theirs


def test_the_script_for_delegated_computation_turns_by_a_step_too_little(monkeypatch):
    # It takes the integer part of an angle in steps of pi/16: -4.9999999 becomes -4. What its
    # server is told shows it.
    watcher = Watcher(monkeypatch)
    alpha, theta = 0.0, 5 * STEP
    client = {"alpha": alpha, "theta1": theta, "r1": 0, "use_rsp": False}
    inputs = {"client": client, "server": {"use_rsp": False}}
    told = {}
    for seed in range(8):
        run = watcher.run(suite.load("sdk_scripts/rsp"), inputs, seed=seed, use_app_config=False)
        steps = [step for step in run.tape.ordered() if step.node == "server"]
        turns = [step.instruction for step in steps if step.instruction.opcode is Opcode.SQG]
        told[run.results["client"]["p1"]] = sum(
            turn.steps for turn in turns[-3:] if turn.axis is Axis.Z
        )
    wanted = {p1: round((alpha - theta + p1 * math.pi) / STEP) % 32 for p1 in (0, 1)}
    assert told.keys() == wanted.keys()
    assert not is_exact(alpha, theta)
    assert told != wanted
    assert all((told[p1] - wanted[p1]) % 32 in (0, 1, 31) for p1 in wanted)
