"""Experiment multitasking: programs at once and one after another, and its command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qnodeos.assembly import NetworkConfig
from qnodeos.cli import multitasking_run
from qnodeos.cli.multitasking_run import analyse_multitasking
from qnodeos.errors import ConfigurationError, IncompleteTraceError
from qnodeos.experiments import multitasking
from qnodeos.experiments.multitasking import (
    BLOCK_S,
    BLOCK_STEPS,
    PAIRS_MAX,
    Block,
    BlockResult,
    MultitaskingSettings,
    blocks_of,
    run_block,
)
from qnodeos.experiments.pool import run_jobs
from tests.system.bench import Z_LIMIT

SETTINGS = MultitaskingSettings((1, 2), ("fcfs",), 1.5, seed=3)
RUN_KEYS = {
    "n",
    "scheduler",
    "multitasking",
    "utilisation",
    "other_process_scheduled",
    "consecutive_lgt",
    "dqc_per_s",
    "lgt_per_s",
    "dqc_fidelity",
    "missed_bins",
}
"""The names the result has to have."""


def run_all(settings: MultitaskingSettings, workers: int = 1) -> dict[str, Any]:
    work = partial(run_block, settings)
    parts = dict(run_jobs(blocks_of(settings), work, workers, lambda done: None))
    return analyse_multitasking(settings, parts)


def one_of(result: dict[str, Any], n: int, *, multitasking: bool) -> dict[str, Any]:
    found = [r for r in result["runs"] if (r["n"], r["multitasking"]) == (n, multitasking)]
    assert len(found) == 1
    run: dict[str, Any] = found[0]
    return run


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return run_all(SETTINGS)


# --- the experiment -----------------------------------------------------------------------


def test_runs_have_the_named_numbers(result: dict[str, Any]) -> None:
    runs = result["runs"]
    assert [(run["n"], run["multitasking"]) for run in runs] == [
        (1, True),
        (1, False),
        (2, True),
        (2, False),
    ]
    for run in runs:
        assert run.keys() >= RUN_KEYS
        assert 0 < run["utilisation"] < 1
    json.dumps(result, allow_nan=False)


def test_multitasking_raises_utilisation_and_rates(result: dict[str, Any]) -> None:
    for n in SETTINGS.pairs:
        together, alone = (one_of(result, n, multitasking=each) for each in (True, False))
        assert together["utilisation"] > 1.2 * alone["utilisation"]
        assert together["dqc_per_s"] > alone["dqc_per_s"]
        assert together["lgt_per_s"] > alone["lgt_per_s"]
        assert together["virtual_s"] == pytest.approx(SETTINGS.seconds)


def test_the_same_work_is_done_alone(result: dict[str, Any]) -> None:
    for n in SETTINGS.pairs:
        together, alone = (one_of(result, n, multitasking=each) for each in (True, False))
        assert alone["dqc_circuits"] == together["dqc_circuits"] > 50
        # Whole repetitions of six subroutines.
        assert abs(alone["lgt_subroutines"] - together["lgt_subroutines"]) <= 3


def test_other_processes_run_only_with_multitasking(result: dict[str, Any]) -> None:
    for n in SETTINGS.pairs:
        together, alone = (one_of(result, n, multitasking=each) for each in (True, False))
        assert together["other_process_scheduled"] > 0.3
        assert together["consecutive_lgt"] > 0.5
        assert alone["other_process_scheduled"] == alone["consecutive_lgt"] == 0.0


def test_one_pair_comes_close_to_the_published_values() -> None:
    settings = MultitaskingSettings((1,), ("fcfs",), 5.0, seed=1)
    run = one_of(run_all(settings), 1, multitasking=True)
    assert run["other_process_scheduled"] == pytest.approx(
        0.56, abs=0.04 + Z_LIMIT * run["other_process_scheduled_sigma"]
    )
    assert run["consecutive_lgt"] == pytest.approx(
        0.83, abs=0.08 + Z_LIMIT * run["consecutive_lgt_sigma"]
    )


def test_three_pairs_come_close_to_the_published_values() -> None:
    settings = MultitaskingSettings((3,), ("fcfs",), 3.0, seed=1)
    run = one_of(run_all(settings), 3, multitasking=True)
    assert run["other_process_scheduled"] > 0.98
    assert run["consecutive_lgt"] == pytest.approx(
        1.65, abs=0.08 + Z_LIMIT * run["consecutive_lgt_sigma"]
    )


def test_combined_starts_attempts_in_time(result: dict[str, Any]) -> None:
    settings = MultitaskingSettings(
        SETTINGS.pairs, ("combined",), SETTINGS.seconds, seed=SETTINGS.seed
    )
    combined = run_all(settings)
    for n in SETTINGS.pairs:
        late_ms, combined_ms = (
            one_of(each, n, multitasking=True)["late_ms"] for each in (result, combined)
        )
        assert late_ms["mean"] > 0.1
        # Blocks that took longer than ever before may run into a bin.
        assert combined_ms["mean"] < 0.01
        assert combined_ms["max"] < 1.0 < late_ms["max"]


def test_the_seed_alone_decides(result: dict[str, Any]) -> None:
    assert run_all(SETTINGS, workers=2)["runs"] == result["runs"]
    other = MultitaskingSettings((1,), ("fcfs",), SETTINGS.seconds, seed=4)
    assert run_all(other)["runs"][0] != result["runs"][0]


def test_mocked_entanglement_has_no_fidelity() -> None:
    network = NetworkConfig.preset("prompt")
    network = network.model_copy(update={"link": network.link.model_copy(update={"mocked": True})})
    settings = MultitaskingSettings((1,), ("fcfs",), 3.0, seed=1, network=network)
    run = one_of(run_all(settings), 1, multitasking=True)
    assert abs(run["dqc_fidelity"] - 0.5) < Z_LIMIT * run["dqc_fidelity_sigma"]


def test_a_recorder_that_is_too_small_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multitasking, "_EVENTS_PER_S", 100)
    with pytest.raises(IncompleteTraceError, match="events; run blocks of less virtual time"):
        run_block(SETTINGS, blocks_of(SETTINGS)[0], lambda: None)


def test_progress_is_reported_in_equal_steps() -> None:
    steps: list[None] = []
    run_block(SETTINGS, Block(1, "fcfs", 0, 1.0), lambda: steps.append(None))
    assert len(steps) == BLOCK_STEPS


def test_blocks_are_equal_and_runs_advance_together() -> None:
    settings = MultitaskingSettings((2, 1), ("fcfs",), 2.5 * BLOCK_S, seed=1)
    blocks = blocks_of(settings)
    assert [(block.n, block.number) for block in blocks] == [
        (2, 0),
        (1, 0),
        (2, 1),
        (1, 1),
        (2, 2),
        (1, 2),
    ]
    assert {block.seconds for block in blocks} == {2.5 * BLOCK_S / 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": (0,)}, "0 pairs of programs cannot be run: give numbers from 1 to"),
        ({"pairs": (PAIRS_MAX + 1,)}, f"{PAIRS_MAX + 1} pairs of programs cannot be run"),
        ({"pairs": (1, 2, 1)}, "number of pairs 1 is given more than once"),
        ({"pairs": ()}, "give at least one number of pairs"),
        ({"schedulers": ("fifo",)}, "there is no scheduler 'fifo'; choose from: fcfs"),
        ({"schedulers": ("fcfs", "fcfs")}, "scheduler fcfs is given more than once"),
        ({"seconds": 0.5}, "0.5 s of virtual time cannot be run: give from 1 s to"),
        ({"seconds": float("nan")}, "nan s of virtual time cannot be run"),
    ],
)
def test_settings_that_cannot_be_run(change: dict[str, Any], message: str) -> None:
    settings = {"pairs": (1,), "schedulers": ("fcfs",), "seconds": 2.0, "seed": 1}
    with pytest.raises(ConfigurationError, match=message):
        MultitaskingSettings(**{**settings, **change})


# --- the command --------------------------------------------------------------------------


@pytest.fixture
def known_results(monkeypatch: pytest.MonkeyPatch) -> BlockResult:
    """Blocks take no time: each is the same one, run once."""
    found = run_block(SETTINGS, Block(1, "fcfs", 0, 1.0), lambda: None)

    def run_known(
        jobs: Sequence[Block], work: Callable[..., Any], *arguments: Any
    ) -> list[tuple[Block, BlockResult]]:
        return [(job, found) for job in jobs]

    monkeypatch.setattr(multitasking_run, "run_jobs", run_known)
    return found


def test_the_command_writes_the_result(
    command: Callable[..., Any], tmp_path: Path, known_results: BlockResult
) -> None:
    path = tmp_path / "new" / "multitasking.json"
    done = command(
        *("experiment", "multitasking", "--n", "1,3..3", "--scheduler", "fcfs,combined"),
        *("--seconds", "20", "--seed", "5", "--json", str(path), "--out", str(tmp_path)),
        *("--trace", "none"),
    )
    assert done.code == 0, done.err
    for text in ("together", "in turn", "relative to fcfs", "published", "56%", "combined"):
        assert text in done.out
    result = json.loads(path.read_text("utf-8"))
    assert len(result["runs"]) == 8
    assert result["seed"] == 5
    assert result["complete"] is True
    assert (tmp_path / "multitasking_utilisation.png").exists()
    assert (tmp_path / "multitasking_rates.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--n", "0"), "0 pairs of programs cannot be run"),
        (("--n", "one"), "'one' is no list of numbers"),
        (("--n", "1,,2"), "'1,,2' is no list of numbers"),
        (("--n", "5..1"), "'5..1' is no list of numbers"),
        (("--n", "1..9000"), "101 pairs of programs cannot be run"),
        (("--n", "1000"), "1000 pairs of programs cannot be run"),
        (("--n", "2,2"), "2 is given more than once"),
        (("--scheduler", "fcfs,round-robin"), "there is no scheduler 'round-robin'"),
        (("--seconds", "0"), "0 s of virtual time cannot be run"),
        (("--profile", "slow"), "'slow' is not one of"),
        (("--quiet",), "nothing would be kept"),
    ],
)
def test_bad_input(
    command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[str],
    message: str,
) -> None:
    monkeypatch.setattr(multitasking_run, "run_jobs", lambda *_: pytest.fail("it ran"))
    destination = () if "--quiet" in arguments else ("--out", str(tmp_path / "out"))
    done = command("experiment", "multitasking", *arguments, *destination)
    assert done.code == 2
    assert message in " ".join((done.out + done.err).replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_what_was_done_before_an_interruption_is_kept(
    command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    known_results: BlockResult,
) -> None:
    def interrupted(jobs: Sequence[Block], *arguments: Any) -> Any:
        yield jobs[0], known_results
        raise KeyboardInterrupt

    monkeypatch.setattr(multitasking_run, "run_jobs", interrupted)
    path = tmp_path / "multitasking.json"
    done = command("experiment", "multitasking", "--n", "1,2", "--json", str(path))
    assert done.code == 130
    result = json.loads(path.read_text("utf-8"))
    assert result["complete"] is False
    assert {run["n"] for run in result["runs"]} == {1}
    assert "Interrupted: 1 of 12 blocks" in " ".join(done.out.split())
