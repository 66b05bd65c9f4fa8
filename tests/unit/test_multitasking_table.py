"""The tables of the multitasking experiment, from numbers that are known."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from qnodeos.experiments.multitasking_table import comparison_table


def runs(
    scheduler: str, n: int, fidelity: float | None, sigma: float | None, blocked: int = 0
) -> list[dict[str, Any]]:
    """A run with multitasking, and the one without."""
    return [
        {
            "scheduler": scheduler,
            "n": n,
            "multitasking": multitasking,
            "utilisation": 0.5 if scheduler == "fcfs" else 0.6,
            "dqc_per_s": 50.0,
            "lgt_per_s": 0.0,
            "dqc_fidelity": fidelity,
            "dqc_fidelity_sigma": sigma,
            "missed_bins": n,
            "blocked_bins": blocked,
            "server": {"missed_bins": 0, "blocked_bins": 1},
        }
        for multitasking in (True, False)
    ]


def rows(table: Table | None) -> list[list[str]]:
    assert table is not None
    console = Console(width=200)
    cells = [list(column.cells) for column in table.columns]
    return [
        [str(console.render_str(str(cell))) for cell in row] for row in zip(*cells, strict=True)
    ]


def test_the_mean_difference_of_all_numbers_of_pairs_is_weighted_by_its_errors() -> None:
    result = {
        "runs": [
            *runs("fcfs", 1, 0.70, 0.006, blocked=4),
            *runs("fcfs", 2, 0.72, 0.012, blocked=6),
            *runs("combined", 1, 0.72, 0.008, blocked=3),
            *runs("combined", 2, 0.71, 0.016),
        ]
    }
    # Differences 0.02 ± 0.01 and -0.01 ± 0.02: weights 4 to 1.
    assert rows(comparison_table(result)) == [
        ["combined", "1", "+20.0%", "+0.0%", "-", "+0.020 ± 0.010", "1 → 1", "5 → 4"],
        ["combined", "2", "+20.0%", "+0.0%", "-", "-0.010 ± 0.020", "2 → 2", "7 → 1"],
        ["combined", "all", "-", "-", "-", "+0.014 ± 0.009", "3 → 3", "12 → 5"],
    ]


def test_one_number_of_pairs_has_no_mean() -> None:
    result = {"runs": [*runs("combined", 1, 0.7, 0.01), *runs("fcfs", 1, 0.7, 0.01)]}
    assert [row[:2] for row in rows(comparison_table(result))] == [["combined", "1"]]


def test_without_fidelity_there_is_no_difference() -> None:
    one = [*runs("fcfs", 1, None, None), *runs("combined", 1, 0.7, 0.01)]
    other = [*runs("fcfs", 2, None, None), *runs("combined", 2, None, None)]
    assert [row[5] for row in rows(comparison_table({"runs": one + other}))] == ["-", "-", "-"]


def test_schedulers_that_cannot_be_compared_make_no_table() -> None:
    assert comparison_table({"runs": runs("fcfs", 1, 0.7, 0.01)}) is None
    apart = [*runs("fcfs", 1, 0.7, 0.01), *runs("combined", 2, 0.7, 0.01)]
    assert comparison_table({"runs": apart}) is None


def test_large_numbers_fit_a_terminal() -> None:
    result = {
        "runs": [
            *runs("fcfs", 100, 0.701, 0.0014, blocked=12345),
            *runs("queue-ahead", 100, 0.681, 0.0014, blocked=12345),
        ]
    }
    console = Console(width=80)
    with console.capture() as captured:
        console.print(comparison_table(result))
    text = captured.get()
    assert "12346 → 12346" in text
    assert "…" not in text
