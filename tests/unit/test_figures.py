"""Figures of results: what they show is what the files say, and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from qnodeos.errors import ConfigurationError, ResultsNotWrittenError
from qnodeos.experiments.dqc_analysis import STAGES, analyse_dqc
from qnodeos.experiments.dqc_segments import PUBLISHED_SEGMENTS_MS
from qnodeos.experiments.figures import results
from qnodeos.experiments.figures.catalogue import FIGURES, parse_names
from qnodeos.experiments.figures.dqc import fidelity_figure, latency_figure
from qnodeos.experiments.figures.lgt import lgt_figure
from qnodeos.experiments.figures.live_times import live_time_figure
from qnodeos.experiments.figures.multitasking import rates_figure, utilisation_figure
from qnodeos.experiments.figures.results import (
    DqcResult,
    LgtResult,
    MultitaskingResult,
    load_result,
)
from qnodeos.experiments.figures.saving import save_dqc_figures, save_figures
from qnodeos.experiments.figures.style import SERIES
from qnodeos.experiments.lgt_analysis import STATES
from tests.unit.figure_data import (
    SEGMENT_MEANS_MS,
    assert_nothing_cut_off,
    bars,
    dqc_result,
    lgt_result,
    multitasking_result,
    points,
    texts,
)
from tests.unit.test_dqc_analysis import READOUT, drawn_sets

DQC = DqcResult.model_validate(dqc_result())
LGT = LgtResult.model_validate(lgt_result())
MULTITASKING = MultitaskingResult.model_validate(multitasking_result())


def every_figure() -> dict[str, Figure]:
    return {
        "4b": fidelity_figure(DQC),
        "4d": latency_figure(DQC),
        "5c": lgt_figure(LGT),
        "5d": utilisation_figure(MULTITASKING),
        "rates": rates_figure(MULTITASKING),
    }


# --- what is shown --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "seed", "size"),
    [
        ("4b", 17, "7,200"),
        ("4d", 17, "7,200"),
        ("5c", 18, "36,000"),
        ("5d", 19, "60 s"),
        ("rates", 19, "60 s"),
    ],
)
def test_every_figure_says_what_it_was_made_from_and_fits(name, seed, size):
    figure = every_figure()[name]
    footer = figure.get_supxlabel().replace("\n", " ")
    assert footer.startswith("Simulated")
    assert f"seed {seed}" in footer
    assert size in footer
    assert "interrupted" not in footer
    assert_nothing_cut_off(figure)
    assert figure.get_figwidth() == 3.5
    assert min(float(text.get_fontsize()) for text in texts(figure)) >= 5.5


def test_an_interrupted_run_is_said_to_be_one():
    for figure in (
        fidelity_figure(DqcResult.model_validate(dqc_result() | {"complete": False})),
        lgt_figure(LgtResult.model_validate(lgt_result() | {"complete": False})),
        utilisation_figure(
            MultitaskingResult.model_validate(multitasking_result() | {"complete": False})
        ),
    ):
        assert "interrupted" in figure.get_supxlabel()


def test_figure_4b_shows_every_estimate_and_the_classical_bound():
    (axes,) = fidelity_figure(DQC).axes
    entries = [entry["fidelity"] for entry in dqc_result()["sets"]]
    entries.append(dqc_result()["mean_fidelity"])
    for stage, container in zip(STAGES, axes.containers, strict=True):
        places, values, sigmas = points(container)
        assert values == pytest.approx([entry[stage]["value"] for entry in entries])
        assert sigmas == pytest.approx([entry[stage]["sigma"] for entry in entries])
        assert places == sorted(places)
    assert [line for line in axes.get_lines() if np.allclose(line.get_ydata(), 2 / 3)]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["0\nπ/4", "π/2\nπ/2", "π\n-π/4", "-π/2\nπ/2", "π/4\nπ", "-π/4\nπ/8", "mean"]


@pytest.mark.parametrize("count", [1, 2, 12])
def test_figure_4b_fits_with_any_number_of_sets(count):
    result = dqc_result()
    result["sets"] = (result["sets"] * 2)[:count]
    figure = fidelity_figure(DqcResult.model_validate(result))
    assert_nothing_cut_off(figure)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_figure_4d_shows_each_segment_from_the_end_of_the_one_before():
    figure = latency_figure(DQC)
    chain = [name for name in SEGMENT_MEANS_MS if name != "s1_after_delivery"]
    means = [SEGMENT_MEANS_MS[name] for name in chain]
    starts = [sum(means[:place]) for place in range(len(means))]
    *sequence, meanwhile, live = bars(figure, published=False)
    assert sequence == [pytest.approx(pair) for pair in zip(starts, means, strict=True)]
    assert meanwhile == pytest.approx((0, 0.5))
    assert live == pytest.approx((0, 5.1))


def test_figure_4d_has_the_published_values_at_the_same_places():
    figure = latency_figure(DQC)
    drawn = bars(figure, published=True)
    known = [name for name in SEGMENT_MEANS_MS if name in PUBLISHED_SEGMENTS_MS]
    known = [*(name for name in known if name != "s1_after_delivery"), "s1_after_delivery"]
    expected = [PUBLISHED_SEGMENTS_MS[name][0] for name in (*known, "live_time")]
    assert [width for _, width in drawn] == pytest.approx(expected)
    starts = {start for start, _ in bars(figure, published=False)}
    assert {start for start, _ in drawn} <= starts
    written = [text.get_text() for text in texts(figure)]
    assert "5.10 | 4.82" in written
    assert "0.60 | *" in written
    assert "1.47" in figure.get_supxlabel()


def test_figure_4d_without_kept_circuits_says_so():
    result = dqc_result() | {"live_time_ms": {"mean": None, "sd": None}}
    figure = latency_figure(DqcResult.model_validate(result))
    assert any("no circuit" in text.get_text() for text in texts(figure))


def test_figure_5c_shows_both_modes_by_state():
    (axes,) = lgt_figure(LGT).axes
    alone, multitasked = (points(container) for container in axes.containers)
    assert alone[1] == pytest.approx([0.98 + 0.002 * place for place in range(6)] + [0.985])
    assert multitasked[1] == pytest.approx([0.97 + 0.002 * place for place in range(6)] + [0.975])
    assert alone[2] == pytest.approx([0.004] * 6 + [0.002])
    assert [label.get_text() for label in axes.get_xticklabels()] == [*STATES, "mean"]


def test_figure_5c_needs_one_mode_only_and_no_means():
    result = lgt_result() | {"multitasked": [], "mean_fidelity": {}}
    (axes,) = lgt_figure(LgtResult.model_validate(result)).axes
    assert [len(points(container)[1]) for container in axes.containers] == [6]


def test_figure_5d_shows_every_run_of_every_scheduler():
    utilisation, other, consecutive = utilisation_figure(MULTITASKING).axes
    series = {container.get_label(): points(container) for container in utilisation.containers}
    assert series["fcfs"][1] == pytest.approx([0.2, 0.4, 0.6])
    assert series["combined"][1] == pytest.approx([0.25, 0.45, 0.65])
    assert series["fcfs, one after another"][1] == pytest.approx([0.1, 0.2, 0.3])
    for places, _, sigmas in series.values():
        assert np.round(places) == pytest.approx([1, 3, 5])
        assert sigmas == pytest.approx([0.01] * 3)
    assert [points(each)[1] for each in other.containers] == [pytest.approx([0.58, 0.74, 0.9])] * 2
    assert [points(each)[1] for each in consecutive.containers] == [
        pytest.approx([1.0, 1.4, 1.8])
    ] * 2


def test_figure_5d_has_the_published_values_where_they_belong():
    utilisation, other, consecutive = utilisation_figure(MULTITASKING).axes

    def published(axes: Any) -> list[tuple[float, float]]:
        lines = [line for line in axes.get_lines() if line.get_label() == "published"]
        return [(x, y) for line in lines for x, y in line.get_xydata().tolist()]

    assert published(other) == [(1, 0.56), (3, 0.99), (5, 0.99)]
    assert published(consecutive) == [(1, 0.83), (5, 1.65)]
    assert published(utilisation) == []
    for axes in (utilisation, other, consecutive):
        low, high = axes.get_ylim()
        values = [y for line in axes.get_lines() for y in np.asarray(line.get_ydata())]
        assert low == 0 and max(values) < 0.95 * high


def test_no_published_values_are_drawn_where_none_belong():
    figure = rates_figure(MULTITASKING)
    assert not any("published" in text.get_text() for text in texts(figure))


def test_colours_differ_in_lightness_or_come_with_a_marker_of_their_own():
    assert len({marker for _, marker in SERIES}) == len({colour for colour, _ in SERIES})
    lightness = sorted(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) for colour, _ in SERIES)
    assert lightness[0] < 0.1 and lightness[-1] > 0.6


# --- beside the run: the distribution of live times ------------------------------------


def test_live_times_show_all_circuits_and_a_long_tail_fits():
    sets = drawn_sets(40, np.random.default_rng(9), READOUT)
    sets[0].segments["live_time"][0] = 40_000
    result = analyse_dqc(sets, READOUT, seed=9)
    figure = live_time_figure(DqcResult.model_validate(result), sets)
    assert_nothing_cut_off(figure)
    histogram = figure.axes[1]
    assert "all (1) beyond" in histogram.get_xlabel()
    kept, discarded = (sum(bar.get_height() for bar in bars) for bars in histogram.containers)
    assert discarded == result["discarded_latency"] > 0
    assert kept + discarded == result["circuits"]
    filled = [bar for bars in histogram.containers for bar in bars if bar.get_height()]
    last = max(filled, key=lambda bar: bar.get_x())
    assert last.get_x() + last.get_width() < histogram.get_xlim()[1]


def test_figures_of_a_run_are_written_beside_it(tmp_path):
    sets = drawn_sets(20, np.random.default_rng(10), READOUT)
    result = analyse_dqc(sets, READOUT, seed=10)
    paths = save_dqc_figures(result, sets, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["dqc_fidelity.png", "dqc_latency.png"]
    for path in paths:
        pixels = imread(path)
        assert pixels.shape[0] > 700
        assert pixels.shape[1] == 1050
        assert pixels[..., :3].std() > 0.05


# --- files ----------------------------------------------------------------------------


def test_both_formats_are_written_and_the_same_data_give_the_same_bytes(tmp_path):
    paths = save_figures({"one": lgt_figure(LGT)}, tmp_path / "a")
    assert [path.name for path in paths] == ["one.png", "one.pdf"]
    with mpl.rc_context({"font.size": 20, "axes.grid": True, "savefig.dpi": 50}):
        again = save_figures({"one": lgt_figure(LGT)}, tmp_path / "b")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in paths[1].read_bytes()


def test_nothing_is_written_where_one_file_cannot_be(tmp_path, monkeypatch):
    save_figures({"one": Figure()}, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name.startswith("two.pdf"):
            write(path, content[:100])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResultsNotWrittenError, match="No space left"):
        save_figures({"one": lgt_figure(LGT), "two": lgt_figure(LGT)}, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- what is read ---------------------------------------------------------------------


def edited(change: Any) -> dict[str, Any]:
    result = dqc_result()
    change(result)
    return result


@pytest.mark.parametrize(
    ("result", "field"),
    [
        (edited(lambda r: r.pop("seed")), "seed"),
        (edited(lambda r: r.update(experiment="lgt")), "experiment"),
        (edited(lambda r: r.update(sets=[])), "sets"),
        (edited(lambda r: r["sets"][2]["fidelity"].pop("cr")), "sets.2.fidelity.cr"),
        (
            edited(lambda r: r["sets"][0]["fidelity"]["cr"].update(sigma=-1)),
            "sets.0.fidelity.cr.sigma",
        ),
        (
            edited(lambda r: r["mean_fidelity"]["ssro"].update(value=float("nan"))),
            "mean_fidelity.ssro.value",
        ),
        (edited(lambda r: r["segments_ms"].pop("s2_qnpu")), "segments_ms.s2_qnpu"),
        (edited(lambda r: r["live_time_ms"].update(mean="5")), "live_time_ms.mean"),
        (edited(lambda r: r.update(circuits=0)), "circuits"),
        (edited(lambda r: r["live_time_ms"].update(sd=1e300)), "live_time_ms.sd"),
        (
            edited(lambda r: r["mean_fidelity"]["cr"].update(value=-1e300)),
            "mean_fidelity.cr.value",
        ),
        (edited(lambda r: r["settings"].update(profile="$x")), "settings.profile"),
    ],
)
def test_a_damaged_result_is_refused_with_file_and_field(result, field, tmp_path):
    path = tmp_path / "dqc.json"
    path.write_text(json.dumps(result), "utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_result(path, DqcResult)
    assert caught.value.file == str(path)
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"text"', "\x00", '{"a": ' * 400])
def test_what_is_no_result_is_refused(text, tmp_path):
    path = tmp_path / "dqc.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=r"dqc\.json"):
        load_result(path, DqcResult)


def test_a_result_has_a_largest_size(tmp_path, monkeypatch):
    path = tmp_path / "lgt.json"
    path.write_text(json.dumps(lgt_result()), "utf-8")
    assert load_result(path, LgtResult) == LGT
    monkeypatch.setattr(results, "RESULT_BYTES_MAX", path.stat().st_size - 1)
    with pytest.raises(ConfigurationError, match="RESULT_BYTES_MAX"):
        load_result(path, LgtResult)


def test_states_and_runs_are_there_once(tmp_path):
    path = tmp_path / "result.json"
    twice = lgt_result()
    twice["alone"][0]["state"] = twice["alone"][1]["state"]
    path.write_text(json.dumps(twice), "utf-8")
    with pytest.raises(ConfigurationError, match="'alone' must have each"):
        load_result(path, LgtResult)
    path.write_text(json.dumps(lgt_result() | {"alone": [], "multitasked": []}), "utf-8")
    with pytest.raises(ConfigurationError, match="both empty"):
        load_result(path, LgtResult)
    runs = multitasking_result()
    runs["runs"].append(runs["runs"][0])
    path.write_text(json.dumps(runs), "utf-8")
    with pytest.raises(ConfigurationError, match="fcfs, n = 5, with multitasking more than once"):
        load_result(path, MultitaskingResult)


def test_figures_are_named_by_their_numbers():
    assert parse_names("5c, 4b") == ("4b", "5c")
    assert parse_names(",".join(FIGURES)) == tuple(FIGURES)
    with pytest.raises(ConfigurationError, match="there is no figure '6a'"):
        parse_names("4b,6a")
    with pytest.raises(ConfigurationError, match="no figure is named"):
        parse_names(" , ")
