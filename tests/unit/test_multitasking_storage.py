"""Multitasking results in the database: the sums of every block, with and without."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from qnodeos.experiments.multitasking import Block, BlockResult
from qnodeos.experiments.multitasking_analysis import Observed, Tally
from qnodeos.experiments.multitasking_storage import add_block, open_multitasking_run
from qnodeos.experiments.storage import DATABASE
from tests.unit.stored_runs import read

TALLIES = ("lgt_runs", "lgt_activations", "lgt_nonzero", "cnpu_wait_ms", "late_ms", "live_time_ms")
ARRAYS = {"client_use": 3, "server_use": 3, "waits": 2, "counts": 4, "bins": 6}
NUMBERS = ("time_ns", "circuits", "lgt_subroutines")


def observed(seed: int) -> Observed:
    rng = np.random.default_rng(seed)
    values = {name: int(rng.integers(1_000)) for name in NUMBERS}
    arrays = {name: rng.integers(1_000, size=size) for name, size in ARRAYS.items()}
    tallies = {name: Tally.of(rng.random(5)) for name in TALLIES}
    return Observed(**values, **arrays, **tallies)  # type: ignore[arg-type]


def test_every_sum_of_every_block_is_stored(tmp_path):
    path = tmp_path / DATABASE
    blocks = {
        Block(n, scheduler, number, 1.0): BlockResult(observed(number), observed(10 + number))
        for n, scheduler, number in ((1, "fcfs", 0), (1, "fcfs", 1), (5, "combined", 0))
    }
    with open_multitasking_run(path, {"seed": 3}) as run:
        for block, result in blocks.items():
            add_block(run, block, result)
    frame = read(path).frame
    assert len(frame) == 2 * len(blocks)
    for block, result in blocks.items():
        chosen = frame.query(
            f"scheduler == {block.scheduler!r} and n == {block.n} and block == {block.number}"
        )
        for multitasking, expected in ((1, result.multitasked), (0, result.alone)):
            (row,) = chosen.query(f"multitasking == {multitasking}").to_dict("records")
            for name in NUMBERS:
                assert row[name] == getattr(expected, name)
            for name in TALLIES:
                tally = Tally(**{part.name: row[f"{name}_{part.name}"] for part in fields(Tally)})
                assert np.isclose(tally.total, getattr(expected, name).total, rtol=1e-14)
                assert np.isclose(tally.squares, getattr(expected, name).squares, rtol=1e-14)
                assert tally.count == getattr(expected, name).count
            assert [row["client_ticks"], row["client_entanglement"], row["client_busy"]] == list(
                expected.client_use
            )
            assert [row["server_ticks"], row["server_entanglement"], row["server_busy"]] == list(
                expected.server_use
            )
            assert [row["waits"], row["waits_shared"]] == list(expected.waits)
            assert [row["shots_along"], row["shots_against"]] == list(expected.counts[1::2])
            assert [row["zeros_along"], row["zeros_against"]] == list(expected.counts[::2])
            bins = [
                row[f"{node}_bins_{kind}"]
                for node in ("client", "server")
                for kind in ("used", "missed", "blocked")
            ]
            assert bins == list(expected.bins)


def test_a_block_without_anything_is_stored(tmp_path):
    path = tmp_path / DATABASE
    nothing = {name: Tally() for name in TALLIES}
    zeros = {name: np.zeros(size, dtype=np.int64) for name, size in ARRAYS.items()}
    empty = replace(observed(1), circuits=0, **nothing, **zeros)  # type: ignore[arg-type]
    with open_multitasking_run(path, {"seed": 3}) as run:
        add_block(run, Block(1, "fcfs", 0, 1.0), BlockResult(empty, empty))
    frame = read(path).frame
    assert frame["lgt_runs_count"].tolist() == [0, 0]
    assert frame["circuits"].tolist() == [0, 0]
