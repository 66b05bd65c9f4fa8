"""Running the conformance suite from the command line: progress, table, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from qnodeos.applications.conformance.suite import cases, examine, report
from qnodeos.cli.run_support import RunOutcome, check_destinations, progress_bar, write_json
from qnodeos.experiments.pool import run_jobs

_STOPPING: Final = (
    "Stopping: the applications that are running are finished first; press Ctrl-C again to "
    "discard them."
)


def run_and_report(
    device: str,
    *,
    only: str | None,
    seed: int,
    runs: int,
    workers: int,
    json_path: Path | None,
    quiet: bool,
) -> bool:
    """Run the applications, print what was found, and write what was asked for.

    Args:
        device: which devices.
        only: one application, None for all.
        seed: of all randomness.
        runs: of each at least.
        workers: processes.
        json_path: where to write the findings as JSON, None for nowhere.
        quiet: no table and no progress bar.

    Returns:
        Whether all have passed.

    Raises:
        ConfigurationError: there is no such application, or nowhere to write to.
        KeyboardInterrupt: there was a Ctrl-C; what was found until then has been reported.
    """
    console = Console(quiet=quiet)
    check_destinations(json_path, None)
    wanted = cases(device, only, seed, runs)
    started_s = time.perf_counter()
    outcome = RunOutcome()
    findings = []
    total = sum(case.total_runs for case in wanted)
    with progress_bar(console, "runs of applications", total) as on_progress, outcome.measuring():
        for _, finding in run_jobs(
            wanted,
            examine,
            min(workers, len(wanted)),
            on_progress,
            on_interrupt=lambda: console.print(_STOPPING),
        ):
            findings.append(finding)
    found = report(findings) | {"complete": outcome.complete}
    console.print(_table(found))
    console.print(
        f"{found['passed']} passed, {found['failed']} failed, of {len(wanted)}; "
        f"{time.perf_counter() - started_s:.0f} s (simulated)"
    )
    if json_path is not None:
        with outcome.writing():
            write_json(json_path, found)
            console.print(f"Result: {json_path}")
    outcome.finish()
    return not found["failed"]


def _table(found: dict[str, Any]) -> Table:
    table = Table(
        title="Applications that come with NetQASM (simulated)",
        title_justify="left",
        box=box.SIMPLE,
    )
    for name in ("application", "has to show", "device", "", "detail"):
        table.add_column(name, overflow="fold")
    previous = None
    for entry in found["applications"]:
        is_same = entry["name"] == previous
        previous = entry["name"]
        table.add_row(
            "" if is_same else entry["name"],
            "" if is_same else entry["criterion"],
            entry["device"],
            "passed" if entry["passed"] else "FAILED",
            entry["detail"],
        )
    return table
