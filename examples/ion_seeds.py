"""The trapped-ion demonstration over many seeds: is QNodeOS ever told from the direct run?

Run it with `.venv/bin/python examples/ion_seeds.py`. Every seed gives seven differences between
the runs through QNodeOS and without it, in standard errors. If there is no difference but chance,
they come from a unit normal distribution; so do those from the closed form.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from qnodeos.experiments.ion import IonSettings, merged, run_blocks
from qnodeos.experiments.ion_analysis import analyse_ion, unit_normal


def main(
    seeds: int = 20, repetitions: int = 10_000, backend: str = "behavioural", workers: int = 0
) -> dict[str, dict[str, float]]:
    """Run all seeds, print how the differences are distributed, and return it."""
    results: list[dict[str, Any]] = []
    for seed in range(1, seeds + 1):
        settings = IonSettings(repetitions, seed, backend=backend)
        blocks = dict(run_blocks(settings, workers or os.cpu_count() or 1, lambda done: None))
        result = analyse_ion(merged(blocks, settings), settings.expected(), seed=seed, wall_s=0.0)
        results.append(result)
        agreement = result["agreement"]["direct"]
        print(
            f"seed {seed}: chi-square {agreement['chi_square']:.2f} for 7, largest |z| "
            f"{agreement['largest_z']:.2f}, exchanges at {result['exchange_hz']:,.0f} Hz",
            flush=True,
        )
    found = {}
    for name, key in (("direct run", "z"), ("closed form", "z_expected")):
        z = [each[key] for result in results for each in result["sequences"]]
        found[name] = normal = unit_normal(z)
        print(
            f"less {name}, {len(z)} z: mean {normal['mean']:+.2f}, variance "
            f"{normal['variance']:.2f}, largest |z| {normal['largest_z']:.2f}; chi-square "
            f"{normal['chi_square']:.1f} (p = {normal['p_value']:.2f}), Kolmogorov-Smirnov "
            f"p = {normal['ks_p_value']:.2f}"
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=10_000)
    parser.add_argument("--backend", choices=["behavioural", "instrument"], default="behavioural")
    parser.add_argument("--workers", type=int, default=0, help="0: one per core")
    main(**vars(parser.parse_args()))
