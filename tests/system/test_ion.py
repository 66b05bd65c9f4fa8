"""The demonstration on a trapped ion: through the whole stack and without it, at both depths."""

from __future__ import annotations

import json
from math import comb
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import chi2

from qnodeos.assembly import load_profile
from qnodeos.assembly.ion import NODE, IonNodeConfig, build_ion_node
from qnodeos.cli import ion_run
from qnodeos.cnpu.external import install
from qnodeos.errors import ConfigurationError, ProgramError
from qnodeos.experiments.ion import IonSettings, blocks_of, merged, run_block, run_blocks
from qnodeos.experiments.ion_analysis import IonData, analyse_ion
from qnodeos.experiments.ion_circuits import SEQUENCES, physical_programs
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.trace.events import Event
from sequences.ion import DdsProfile, IonSequenceSettings, ion_program
from sim.ion.node import InstrumentIonDevice
from sim.ion.physics import IonPhysics
from sim.ion_device import BehaviouralIonDevice
from sim.ion_timing import IonTiming
from sim.network import ProgramSpec
from tests.unit.stored_runs import read

FACTS = [0.001, 0.989, 0.989, 0.5, 0.5, 0.979, 0.021]
"""Predicted with the published errors, to three places."""

NOISELESS = IonNodeConfig(physics=IonPhysics.noiseless())


def analysed(data: IonData, settings: IonSettings) -> dict[str, Any]:
    return analyse_ion(data, settings.expected(), seed=settings.seed, wall_s=1.0)


def test_the_closed_forms_are_those_of_the_facts():
    assert IonSettings(1, 1).expected() == pytest.approx(FACTS, abs=6e-4)


def test_a_block_agrees_with_the_closed_form_and_with_the_direct_run():
    """300 repetitions; a right one fails with a probability of about 14 * 6e-5."""
    settings = IonSettings(300, seed=7)
    data = merged({block: run_block(settings, block) for block in blocks_of(settings)}, settings)
    result = analysed(data, settings)
    assert [each["name"] for each in result["sequences"]] == list(SEQUENCES)
    for comparison in ("direct", "expected"):
        assert result["agreement"][comparison]["largest_z"] < 4
    assert result["exchange_hz"] == 50_000
    assert result["exchanges"]["shortest_ns"] == 20_000


def test_z_over_twenty_seeds_is_a_unit_normal():
    """140 z of 40 repetitions each; a right one fails with a probability of 2e-4.

    Half of all sequences nearly always end the same way, which counts of 40 show coarsely; the
    sum of squares is compared with what exact binomial counts give.
    """
    n = 40
    z = []
    for seed in range(20):
        settings = IonSettings(n, seed)
        (block,) = blocks_of(settings)
        result = analysed(run_block(settings, block), settings)
        z += [each["z"] for each in result["sequences"]]
    mean, variance = expected_square(IonSettings(n, 0).expected(), n)
    total = float(np.sum(np.square(z)))
    # Gamma distribution of this mean and variance.
    scale = 20 * variance / (2 * 20 * mean)
    degrees = 20 * mean / scale
    assert 1e-4 < chi2.cdf(total / scale, degrees) < 1 - 1e-4
    assert abs(np.mean(z)) < 4 * np.sqrt(mean / 7 / 140)


def expected_square(probabilities: list[float], n: int) -> tuple[float, float]:
    """Mean and variance of the sum of seven z squared, of exact binomial counts."""
    counts = np.arange(n + 1)
    pooled = (counts[:, None] + counts[None, :]) / (2 * n)
    spread = 2 * pooled * (1 - pooled) / n
    difference = (counts[:, None] - counts[None, :]) / n
    square = np.divide(difference**2, spread, out=np.zeros_like(spread), where=spread > 0)
    mean = variance = 0.0
    for p in probabilities:
        pmf = np.array([comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts])
        weight = pmf[:, None] * pmf[None, :]
        mean += (first := float((weight * square).sum()))
        variance += float((weight * square**2).sum()) - first**2
    return mean, variance


@pytest.mark.parametrize("backend", ["behavioural", "instrument"])
def test_without_errors_six_sequences_are_certain(backend):
    settings = IonSettings(2, seed=3, node=NOISELESS, backend=backend)
    (block,) = blocks_of(settings)
    data = run_block(settings, block)
    certain = [0, 1, 2, 5, 6]
    for outcomes in (data.qnodeos, data.direct):
        assert outcomes[:, certain].tolist() == [[0, 1, 1, 1, 0]] * 2
    assert data.exchanges.rate_hz == 50_000
    assert settings.expected() == pytest.approx([0, 1, 1, 0.5, 0.5, 1, 0], abs=1e-6)


def test_the_result_depends_on_the_seed_alone():
    settings = IonSettings(120, seed=9)
    one = merged(dict(run_blocks(settings, 1, lambda done: None)), settings)
    two = merged(dict(run_blocks(settings, 2, lambda done: None)), settings)
    assert (one.qnodeos == two.qnodeos).all()
    assert (one.direct == two.direct).all()
    assert one.exchanges == two.exchanges
    other = run_block(IonSettings(20, seed=10), blocks_of(IonSettings(20, seed=10))[0])
    assert (other.qnodeos != one.qnodeos[:20]).any()
    assert (one.qnodeos != one.direct).any(), "the direct run has a random stream of its own"


def test_every_circuit_goes_through_the_whole_stack():
    install()
    from qnodeos.experiments.programs import ion_sequences

    with build_ion_node(NOISELESS, load_profile("paper"), 1) as system:
        (dark,) = system.network.run(
            [ProgramSpec(NODE, "seven", ion_sequences.main, {"node": NODE, "repetitions": 2})]
        )
        events = system.qnpu_trace.columns()["event"]
        sent = system.host_trace.columns()["event"]
    assert dark[:3] == [0, 2, 2]
    assert (sent == Event.SUBROUTINE_SENT).sum() == 14
    assert (events == Event.QDEVICE_PRODUCE_INI_CMD).sum() == 14
    assert (events == Event.QDEVICE_PRODUCE_MSR_CMD).sum() == 14


def test_both_runs_ask_the_device_for_the_same(monkeypatch):
    """Outcomes alone do not tell a rotation about Y from one about X."""
    begun: list[PhysicalInstruction] = []
    start = BehaviouralIonDevice._start

    def recorded(device, tick, instruction):
        begun.append(instruction)
        start(device, tick, instruction)

    monkeypatch.setattr(BehaviouralIonDevice, "_start", recorded)
    settings = IonSettings(1, seed=1)
    (block,) = blocks_of(settings)
    run_block(settings, block)
    assert begun == 2 * [instruction for program in physical_programs() for instruction in program]


def test_the_instruments_are_set_up_as_the_configuration_says():
    node = IonNodeConfig.model_validate(
        {
            "physics": {"carrier_hz": 90e6, "trap_hz": 2e6, "pi_time_ns": 12_000},
            "timing": {"detection_us": 2_000, "threshold": 44},
        }
    )
    with build_ion_node(node, load_profile("zero"), 1, backend="instrument") as system:
        assert isinstance(system.device, InstrumentIonDevice)
        parts = system.device.node
        tones = {}
        for profile in (DdsProfile.X, DdsProfile.RED_SIDEBAND):
            parts.dds.set_profile(parts.time_ns, profile)
            tones[profile] = parts.dds.output(parts.time_ns + 1_000).frequency_hz
    sequences = IonSequenceSettings(pi_time_ns=12_000, detection_us=2_000)
    assert parts.sequencer.words == ion_program(sequences).words
    assert parts.pmt.threshold == 44
    assert tones == pytest.approx({DdsProfile.X: 90e6, DdsProfile.RED_SIDEBAND: 88e6})


def test_what_the_ion_cannot_do_is_said():
    install()
    from netqasm.sdk import Qubit
    from netqasm.sdk.external import NetQASMConnection

    def program():
        with NetQASMConnection(NODE, max_qubits=1) as connection:
            Qubit(connection).rot_X(n=1, d=4)
            connection.flush()

    with (
        build_ion_node(NOISELESS, load_profile("zero"), 1) as system,
        pytest.raises(ProgramError) as caught,
    ):
        system.network.run([ProgramSpec(NODE, "small", program, {})])
    assert "no multiple of pi/2" in str(caught.value.__cause__)


def test_settings_that_cannot_be():
    with pytest.raises(ConfigurationError, match="give 1 to 1,000,000"):
        IonSettings(0, 1)
    with pytest.raises(ConfigurationError, match="no backend 'deep'"):
        build_ion_node(IonNodeConfig(), load_profile("zero"), 1, backend="deep")
    fast = IonNodeConfig(timing=IonTiming(tick_ns=10_000))
    with pytest.raises(ConfigurationError, match="at instrument level it is 20000"):
        build_ion_node(fast, load_profile("zero"), 1, backend="instrument")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"timing": {"detection_us": 1_521}}, "timing.measure_ticks is 76, .* make it 77"),
        ({"timing": {"tick_ns": 9_999}}, "timing.measure_ticks is 76, .* make it 151"),
        ({"physics": {"pi_time_ns": 20_001}}, "timing.pi_ticks is 1, .* make it 2"),
        (
            {"physics": {"pi_time_ns": 60_000}, "timing": {"pi_ticks": 3}},
            "timing.half_pi_ticks is 1, .* make it 2",
        ),
    ],
)
def test_no_instruction_is_over_before_what_it_does(node, message):
    with pytest.raises(ConfigurationError, match=message):
        build_ion_node(IonNodeConfig.model_validate(node), load_profile("zero"), 1)


@pytest.mark.parametrize("pi_time_ns", [100, 100_020])
def test_a_pi_time_that_no_sequence_has(pi_time_ns):
    node = IonNodeConfig(physics=IonPhysics(pi_time_ns=pi_time_ns))
    with pytest.raises(ConfigurationError, match=r"pi_time_ns .* from 1000 to 100000"):
        build_ion_node(node, load_profile("zero"), 1, backend="instrument")


def test_a_pi_time_between_the_steps_and_the_highest_threshold():
    node = IonNodeConfig.model_validate(
        {"physics": {"pi_time_ns": 10_010}, "timing": {"threshold": 65_534}}
    )
    with build_ion_node(node, load_profile("zero"), 1, backend="instrument"):
        pass
    with pytest.raises(ValidationError, match="threshold"):
        IonTiming(threshold=65_535)


# --- the command ----------------------------------------------------------------------------


def test_the_command(command, tmp_path):
    out, path = tmp_path / "out", tmp_path / "ion.json"
    done = command(
        *("experiment", "ion", "--repetitions", "3", "--seed", "2", "--workers", "1"),
        *("--json", str(path), "--out", str(out), "--trace", "csv"),
    )
    assert done.code == 0, done.err
    assert "simulated" in done.out
    result = json.loads(path.read_text())
    assert (result["exchange_hz"], result["complete"], result["repetitions"]) == (50_000, True, 3)
    assert len(result["sequences"]) == 7
    assert {"name", "p_dark", "sigma", "expected", "direct", "z"} <= set(result["sequences"][0])
    assert {"p_dark", "sigma"} <= set(result["sequences"][0]["direct"])
    assert (out / "ion_p_dark.png").read_bytes().startswith(b"\x89PNG")
    assert list((out / "ion_traces").iterdir())
    stored = read(out / "qnodeos.db")
    assert len(stored.frame) == 2 * 3 * 7
    for name in ("qnodeos", "direct"):
        rows = stored.frame[stored.frame["run"] == name]
        for index, sequence in enumerate(SEQUENCES):
            entry = result["sequences"][index]
            entry = entry if name == "qnodeos" else entry["direct"]
            assert rows[rows["sequence"] == sequence]["dark"].mean() == pytest.approx(
                entry["p_dark"]
            )


def test_a_node_file_of_the_experiment(command, tmp_path):
    config, path = tmp_path / "node.yaml", tmp_path / "ion.json"
    config.write_text("physics: {preparation_error: 0.25}\n")
    done = command(
        *("experiment", "ion", "--repetitions", "1", "--quiet", "--workers", "1"),
        *("--json", str(path), "--config", str(config)),
    )
    assert (done.code, done.out) == (0, ""), done.err
    assert json.loads(path.read_text())["sequences"][0]["expected"] == pytest.approx(0.25, abs=1e-3)


def test_quiet_without_a_file_is_refused(command):
    assert command("experiment", "ion", "--quiet").code == 2


@pytest.mark.parametrize("kept", [0, 2])
def test_ctrl_c_keeps_what_was_measured(command, tmp_path, monkeypatch, kept):
    def interrupted(settings, workers, on_progress, on_interrupt):
        for block in blocks_of(settings)[:kept]:
            yield block, run_block(settings, block)
        raise KeyboardInterrupt

    monkeypatch.setattr(ion_run, "run_blocks", interrupted)
    monkeypatch.setattr("qnodeos.experiments.ion.BLOCK_REPETITIONS", 2)
    monkeypatch.setattr(ion_run, "BLOCK_REPETITIONS", 2)
    path = tmp_path / "ion.json"
    done = command(
        "experiment", "ion", "--repetitions", "5", "--json", str(path), "--out", str(tmp_path)
    )
    assert done.code == 130
    assert f"Interrupted: {kept * 2} of 5 repetitions are done and kept." in done.out
    stored = read(tmp_path / "qnodeos.db")
    assert len(stored.frame) == kept * 2 * 2 * 7
    assert stored.metadata["state"] == "interrupted"
    assert path.exists() == (kept > 0)
    if kept:
        assert json.loads(path.read_text())["complete"] is False
