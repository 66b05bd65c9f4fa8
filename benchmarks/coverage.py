"""`python -m benchmarks.coverage [NAME...]`: do calibrations find what the simulator was given?

Every seed draws another truth. An uncertainty is honest if the truth lies within one standard
uncertainty of the value found about 68 times in 100; 55 to 80 % are wanted. The expectation of
a fraction of n independent values has a standard deviation of sqrt(0.68 * 0.32 / n), which is
printed too.

Exit codes: 0 done; 1 with --check, a coverage outside 55 to 80 %.
"""

from __future__ import annotations

import json
import math
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

LOWEST, HIGHEST = 0.55, 0.80
EXPECTED = math.erf(1 / math.sqrt(2))

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "ssro": {"shots": 1500},
    "rabi": {"shots": 100},
    "fidelity-alpha": {"pairs": 80},
}
"""Fewer shots than a laboratory would take: honesty does not depend on them."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def deviations(name: str, seed: int, settings: dict[str, Any] | None = None) -> dict[str, float]:
    """How far the values found are from the truth, in standard uncertainties.

    Args:
        name: of the measurement, a key of `SETTINGS`.
        seed: of truth and simulation.
        settings: of the measurement; None for those of `SETTINGS`.
    """
    from calibration.registry import measurement
    from calibration.runner import Archive, calibrate
    from qnodeos.cli.benches import open_benches

    what = measurement(name, **(SETTINGS[name] if settings is None else settings))
    with tempfile.TemporaryDirectory(prefix="qnodeos-coverage-") as directory:
        archive = Archive(Path(directory) / "coverage.db")
        with open_benches(
            name,
            "server",
            seed=seed,
            # The readout must be the one that analyses correct for.
            drawn=not what.on_pair,
            calibrations=Path(directory),
            station=None,
            spi=None,
        ) as benches:
            bench = benches.pair if what.on_pair else benches.nodes["server"]
            assert bench is not None
            result = calibrate(what, bench, archive).result
            truth = benches.truth(result, list(benches.nodes))
    found: dict[str, float] = {}
    for key, true in truth.items():
        if isinstance(true, float):
            value, sigma = result.values[key]
            found[key] = (value - true) / sigma
    for point, true in zip(result.details.get("alphas", ()), truth.get("alphas", ()), strict=True):
        fidelity = point["fidelity"]
        found[f"fidelity at {point['alpha']}"] = (fidelity["value"] - true["fidelity"]) / fidelity[
            "sigma"
        ]
    return found


@app.command()
def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many truths.")] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write deviations here.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if it is missed.")] = False,
) -> None:
    """Repeat calibrations of simulated nodes and count how often they are right."""
    wanted = names or list(SETTINGS)
    for name in wanted:
        if name not in SETTINGS:
            raise typer.BadParameter(f"no measurement {name!r}; there are {', '.join(SETTINGS)}")
    console = Console()
    table = Table("measurement", "values", "within 1 sigma", "expected", title="Coverage")
    document: dict[str, Any] = {}
    missed = False
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for name in wanted:
            with console.status(f"{name} ..."):
                rows = list(pool.map(deviations, [name] * seeds, range(1, seeds + 1)))
            values = [value for row in rows for value in row.values()]
            inside = sum(abs(value) < 1 for value in values) / len(values)
            spread = math.sqrt(EXPECTED * (1 - EXPECTED) / len(values))
            missed |= not LOWEST <= inside <= HIGHEST
            table.add_row(
                name, str(len(values)), f"{inside:.3f}", f"{EXPECTED:.3f} +- {spread:.3f}"
            )
            document[name] = {"coverage": inside, "values": len(values), "deviations": rows}
    console.print(table)
    if json_path is not None:
        json_path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if check and missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
