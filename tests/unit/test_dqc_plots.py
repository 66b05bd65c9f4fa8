"""DQC figures: what they show is what the analysis found, and all of it is visible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from calibration.readout import ReadoutFidelity
from qnodeos.errors import InsufficientDataError
from qnodeos.experiments.dqc_analysis import STAGES, DqcSetData, analyse_dqc
from qnodeos.experiments.dqc_plots import fidelity_figure, latency_figure, save_dqc_figures
from tests.unit.test_dqc_analysis import READOUT, drawn_sets, made_set


@pytest.fixture(name="run", scope="module")
def _run() -> tuple[dict[str, Any], list[DqcSetData]]:
    sets = drawn_sets(60, np.random.default_rng(7), READOUT)
    return analyse_dqc(sets, READOUT, seed=7), sets


def texts(figure: Figure) -> list[Text]:
    figure.draw_without_rendering()
    return [
        text
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_text() and text.get_visible()
    ]


def assert_nothing_cut_off(figure: Figure) -> None:
    for text in texts(figure):
        box = text.get_window_extent()
        inside = (
            box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        )
        assert inside or text in undrawn_tick_labels(figure), text


def undrawn_tick_labels(figure: Figure) -> list[Text]:
    """Labels of ticks beyond the limits of an axis, which exist but are not drawn."""
    labels = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            labels += [tick.label1 for tick in ticks if not low <= tick.get_loc() <= high]
    return labels


def test_figures_are_written(run: tuple[dict[str, Any], list[DqcSetData]], tmp_path: Path) -> None:
    paths = save_dqc_figures(*run, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["dqc_fidelity.png", "dqc_latency.png"]
    for path in paths:
        pixels = imread(path)
        assert pixels.shape[0] > 500
        assert pixels.shape[1] > 900
        assert pixels[..., :3].std() > 0.05


def test_figures_say_simulated_and_fit(run: tuple[dict[str, Any], list[DqcSetData]]) -> None:
    result, sets = run
    for figure in (fidelity_figure(result), latency_figure(result, sets)):
        for axes in figure.axes:
            assert "simulated" in axes.get_title()
        assert_nothing_cut_off(figure)


def test_fidelity_figure_shows_every_estimate(run: tuple[dict[str, Any], list[DqcSetData]]) -> None:
    result, _ = run
    (axes,) = fidelity_figure(result).axes
    fidelities = [entry["fidelity"] for entry in result["sets"]] + [result["mean_fidelity"]]
    for stage, container in zip(STAGES, axes.containers, strict=True):
        assert isinstance(container, ErrorbarContainer)
        points, _, (bars,) = container.lines
        assert points.get_ydata() == pytest.approx([f[stage]["value"] for f in fidelities])
        half = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
        assert half == pytest.approx([f[stage]["sigma"] for f in fidelities])
    assert any(np.allclose(line.get_ydata(), 2 / 3) for line in axes.get_lines())


def test_latency_figure_shows_segments_and_all_circuits(
    run: tuple[dict[str, Any], list[DqcSetData]],
) -> None:
    result, sets = run
    tracks, histogram = latency_figure(result, sets).axes
    widths = [bar.get_width() for container in tracks.containers for bar in container]
    for name in ("c1_after_delivery", "server_message_to_s2_attempt", "up_server", "s2_qnpu"):
        assert any(width == pytest.approx(result["segments_ms"][name]["mean"]) for width in widths)
    for y in (1, 0):
        track = [c[0] for c in tracks.containers if c[0].get_y() < y < c[0].get_y() + 1]
        starts = [bar.get_x() for bar in track]
        assert starts == pytest.approx(np.cumsum([0] + [bar.get_width() for bar in track[:-1]]))
    kept, discarded = (
        sum(bar.get_height() for bar in container) for container in histogram.containers
    )
    assert discarded == result["discarded_latency"] > 0
    assert kept + discarded == result["circuits"]


def test_latency_figure_without_kept_circuits_says_so() -> None:
    sets = drawn_sets(2, np.random.default_rng(8), READOUT)
    result = analyse_dqc(sets, READOUT, seed=8, latency_limit_ms=0.01)
    figure = latency_figure(result, sets, latency_limit_ms=0.01)
    assert any("no circuit" in text.get_text() for text in texts(figure))


def test_few_circuits_and_long_tails_still_fit() -> None:
    sets = drawn_sets(2, np.random.default_rng(9), READOUT)
    sets[0].segments["live_time"][0] = 40_000
    result = analyse_dqc(sets, READOUT, seed=9)
    figure = latency_figure(result, sets)
    assert_nothing_cut_off(figure)
    assert_nothing_cut_off(fidelity_figure(result))
    histogram = figure.axes[1]
    assert "all (1) beyond" in histogram.get_xlabel()
    assert sum(bar.get_height() for bars in histogram.containers for bar in bars) == 12


@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_legend_fits_with_any_number_of_sets(count: int) -> None:
    sets = drawn_sets(20, np.random.default_rng(10), READOUT)[:count]
    figure = fidelity_figure(analyse_dqc(sets, READOUT, seed=10))
    assert_nothing_cut_off(figure)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert [text.get_text() for text in legend.get_texts()].count("classical bound 2/3") == 1


@pytest.mark.parametrize("live_ms", [14.0, 40_000.0])
def test_the_last_bar_is_whole(live_ms: float) -> None:
    sets = drawn_sets(20, np.random.default_rng(11), READOUT)
    sets[0].segments["live_time"][0] = live_ms
    histogram = latency_figure(analyse_dqc(sets, READOUT, seed=11), sets).axes[1]
    filled = [bar for bars in histogram.containers for bar in bars if bar.get_height()]
    last = max(filled, key=lambda bar: bar.get_x())
    assert last.get_x() + last.get_width() < histogram.get_xlim()[1]


def test_a_missing_segment_is_named() -> None:
    sets = [made_set([0, 1], [0, 1])]
    result = analyse_dqc(sets, ReadoutFidelity(1, 1), seed=0)
    with pytest.raises(InsufficientDataError, match="'c1_after_delivery'"):
        latency_figure(result, sets)
