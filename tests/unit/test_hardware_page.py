"""The tables of docs/hardware.md are what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from drivers import spi
from drivers.nv_setup import AWG_CORES, LASERS, MARKS, NVSettings
from instruments import nv_controller
from instruments.nv_controller import ControllerSettings
from instruments.station import station_file
from sequences.nv_seqc import HeraldTiming
from sequences.waveform_table import AttemptTiming, Marker, TableSettings
from sim.adwin.options import Costs, ProcessorModel, Semantics
from sim.hdawg import HdawgTiming
from sim.lab.timing import LabTiming
from sim.nv.physics import NVPhysics

PAGE = Path(__file__).parents[2] / "docs" / "hardware.md"

if not PAGE.is_file():
    pytest.skip("the documentation is not installed with the package", allow_module_level=True)

TEXT = PAGE.read_text("utf-8")
NUMBER = r"-?\d+(?:\.\d+)?(?:e\d+)?"


def table_after(title: str) -> list[list[str]]:
    """The cells of the first table after a piece of text that occurs once."""
    assert TEXT.count(title) == 1, title
    table = re.search(r"(?:^\|.*\|\n)+", TEXT[TEXT.index(title) :], re.M)
    assert table is not None
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table[0].splitlines()[2:]]
    return [[cell.strip() for cell in row] for row in rows]


def fields_of(title: str) -> dict[str, str]:
    """Text of the default by name of the field."""
    found: dict[str, str] = {}
    for names, default, *_ in table_after(title):
        fields = re.findall(r"`([\w.]+)`", names)
        values = re.findall(NUMBER, default) if len(fields) > 1 else [default]
        prefix = ""
        for field, value in zip(fields, values, strict=True):
            prefix = field.rpartition(".")[0] or prefix
            found[f"{prefix}.{field}" if prefix and "." not in field else field] = value
    return found


def as_written(text: str, value: Any) -> Any:
    """A text of the page as what it is compared with."""
    return text.strip("`") if isinstance(value, str) else float(text)


OBJECTS = {
    "`instruments.nv_controller.ControllerSettings`, parameters": ControllerSettings(),
    "`sequences.nv_seqc.HeraldTiming`:": HeraldTiming(),
    "`sequences.waveform_table.AttemptTiming`:": AttemptTiming(),
    "`sim.hdawg.HdawgTiming`, in samples": HdawgTiming(),
    "`sim.lab.timing.LabTiming`:": LabTiming(),
    "`sim.nv.physics.NVPhysics`; what": NVPhysics(),
}
IN_WORDS = {"batch_us": "from the attempts"}


@pytest.mark.parametrize("title", OBJECTS)
def test_defaults_are_those_of_the_code(title):
    described, values = fields_of(title), vars(OBJECTS[title])
    assert set(described) == set(values)
    for name, text in described.items():
        if name in IN_WORDS:
            assert text == IN_WORDS[name]
        else:
            assert as_written(text, values[name]) == values[name], name


def test_what_is_assumed_of_the_adwin_is_what_the_options_say():
    described = fields_of("`sim.adwin.options`:")
    t12 = ProcessorModel.t12()
    assert described.pop("Semantics.float_bits") == (
        f"{t12.semantics.float_bits} on a T12, {ProcessorModel.t11().semantics.float_bits} on a T11"
    )
    options = {"Semantics": t12.semantics, "Costs": t12.costs, "ProcessorModel": t12}
    for name, text in described.items():
        owner, _, field = name.partition(".")
        value = getattr(options[owner], field)
        assert as_written(text, value) == value, name
    expected = {f"Semantics.{name}" for name in Semantics.model_fields} - {"Semantics.float_bits"}
    expected |= {f"Costs.{name}" for name in Costs.model_fields}
    assert set(described) == expected | {"ProcessorModel.pending_events"}


def test_settings_in_the_text_are_those_of_the_code():
    settings, table = NVSettings(), TableSettings()
    section = TEXT[TEXT.index("`sequences.waveform_table.TableSettings`:") :]
    [spacing, initialisation, alpha] = re.findall(
        rf"`(?:spacing_samples|initialisation_ns|alphas)` ({NUMBER})", section[:400]
    )
    assert int(spacing) == table.spacing_samples
    assert float(initialisation) == table.initialisation_ns
    assert (float(alpha),) == table.alphas
    match = re.search(
        r"`attempts_per_batch` (\d+), `laser_volts` none, `detectors`, frequency (\d+) GHz and "
        r"power (\d+) dBm\s+of the source.*\s.*, (\d+) V for every level",
        section,
    )
    assert match is not None
    attempts, frequency, power, volts = map(int, match.groups())
    assert attempts == settings.attempts_per_batch
    assert not settings.laser_volts
    entries = YAML(typ="safe").load(station_file("client", simulation=False))["instruments"]
    nominal = [entries[name]["init"]["nominal_v"] for name in LASERS]
    assert {each for laser in nominal for each in laser.values()} == {volts}
    assert (frequency * 1e9, power) == (settings.mw_frequency_hz, settings.mw_power_dbm)


# --- wiring ---------------------------------------------------------------------------------------


def test_the_mark_connectors_are_those_of_the_driver():
    rows = [row for row in table_after("### HDAWG") if row[0].startswith("Mark ")]
    described = {int(row[0].split()[1]) - 1: (int(row[1]), row[3].strip("`")) for row in rows}
    assert described == dict(MARKS)
    assert {row[1] for row in rows} == {str(core) for core in AWG_CORES}


def test_the_sources_of_the_marks_are_the_markers_of_the_table():
    for row in table_after("### HDAWG"):
        if row[2] in Marker.__members__:
            marker = Marker[row[2]]
            assert row[3] == f"`output{marker // 2}_marker{marker % 2}`"
            assert row[0].startswith("Mark ")


LINES = {
    "reset of the herald": nv_controller.CPLD_RESET_LINE,
    "READY": nv_controller.READY_LINE,
    "SUCCESS": nv_controller.SUCCESS_LINE,
    "acknowledge": nv_controller.ACKNOWLEDGE_LINE,
    "PLAYED": nv_controller.PLAYED_LINE,
    "herald": nv_controller.HERALD_LINE,
    "which detector: low the first, high the second": nv_controller.DETECTOR_LINE,
    "the neighbour's READY": nv_controller.PEER_READY_LINE,
    "the neighbour's SUCCESS": nv_controller.PEER_SUCCESS_LINE,
}


def test_the_lines_of_the_adwin_are_those_of_the_driver():
    rows = table_after("Digital lines; 0 to 15 are outputs")
    found = {row[2]: int(row[0]) for row in rows if row[2] in LINES}
    assert found == LINES
    assert [row[1] for row in rows if int(row[0].split()[0]) >= 16] == ["in"] * 7
    # Both ends of a cable name each other.
    marks = {row[0]: row[4] for row in table_after("### HDAWG")}
    for row in rows:
        if row[3].startswith("AWG Mark"):
            assert marks[row[3].removeprefix("AWG ")] == f"ADwin line {row[0]}"


def test_the_spi_interface_is_as_it_is_opened():
    rows = dict(table_after("### QNPU and SPI"))
    assert rows["mode"].startswith(f"{spi.DEFAULT_MODE}:")
    assert rows["clock"] == f"{spi.DEFAULT_SPEED_HZ / 1e6:g} MHz"
