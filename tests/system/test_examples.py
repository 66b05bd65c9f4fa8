"""The examples run, and show what they say."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.system.bench import Z_LIMIT

EXAMPLES = Path(__file__).parents[2] / "examples"
BOTH_BRIGHT = 0.225
"""Of the pairs of the single-photon protocol: alpha^2 / (alpha^2 + 2 alpha (1 - alpha)), with
the same detection probability for both nodes and for one or two photons p and 2 p."""
READS_1 = {0: 0.05, 1: 0.995}

if not EXAMPLES.is_dir():
    pytest.skip("the examples are not installed with the package", allow_module_level=True)


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def assert_share(count: int, total: int, probability: float) -> None:
    """By chance this fails with a probability of 7e-6; the seed is fixed."""
    sigma = math.sqrt(total * probability * (1 - probability))
    assert abs(count - total * probability) < Z_LIMIT * sigma


def expected_agreement() -> float:
    """Client and server share 00 or 11, but 01 if both spins were bright."""
    one_click = (1 - BOTH_BRIGHT) / 2
    shares = {(0, 0): one_click, (1, 1): one_click, (0, 1): BOTH_BRIGHT}
    return sum(
        share * (READS_1[a] * READS_1[b] + (1 - READS_1[a]) * (1 - READS_1[b]))
        for (a, b), share in shares.items()
    )


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "hdawg_dry_run",
        "ion_seeds",
        "measure_pair",
        "two_programs",
    }


def test_measure_pair(capsys):
    pairs = 400
    outcomes, agreement = example("measure_pair")["main"](pairs=pairs)
    assert len(outcomes) == pairs
    client_1 = (1 - BOTH_BRIGHT) / 2
    assert_share(sum(outcomes), pairs, client_1 * READS_1[1] + (1 - client_1) * READS_1[0])
    assert_share(round(agreement * pairs), pairs, expected_agreement())
    printed = capsys.readouterr().out
    assert f"in {sum(outcomes) / pairs:.0%} of the pairs" in printed
    assert f"agreed with the client on {agreement:.0%}" in printed


def test_what_measure_pair_says_is_so():
    text = " ".join((EXAMPLES / "measure_pair.py").read_text("utf-8").split())
    client_1 = (1 - BOTH_BRIGHT) / 2
    measured_1 = client_1 * READS_1[1] + (1 - client_1) * READS_1[0]
    assert f"1 in about {measured_1:.0%}".replace("%", " %") in text
    assert f"agree on about {expected_agreement():.0%}".replace("%", " %") in text


def test_two_programs(capsys):
    pairs, measurements = 100, 200
    created, received, measured = example("two_programs")["main"](pairs, measurements)
    assert (len(created), len(received), len(measured)) == (pairs, pairs, measurements)
    agreed = sum(a == b for a, b in zip(created, received, strict=True))
    assert_share(agreed, pairs, expected_agreement())
    # Initialisation (1 %), a pulse (0.14 %) and readout; a rare ionised centre reads 1.
    assert_share(sum(measured), measurements, 0.99 * 0.995 + 0.01 * 0.05)
    assert f"{pairs} pairs in" in capsys.readouterr().out


def test_hdawg_dry_run(capsys):
    distances = example("hdawg_dry_run")["main"]()
    assert len(distances) > 40
    assert set(distances) == {24_102}
    assert "24102 to 24102 samples apart" in capsys.readouterr().out


def test_ion_seeds(capsys):
    """By chance this fails with a probability of 1e-3; the seeds are fixed."""
    found = example("ion_seeds")["main"](seeds=2, repetitions=150, workers=1)
    assert all(found[name]["p_value"] > 2.5e-4 for name in ("direct run", "closed form"))
    printed = capsys.readouterr().out
    assert "seed 2: chi-square" in printed
    assert "at 50,000 Hz" in printed
    assert "less direct run, 14 z" in printed
