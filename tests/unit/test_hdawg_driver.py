"""The HDAWG driver on a mocked data server: what is sent, in which order, and what if not.

No instrument and no simulator: an autospec of the vendor's `ziDAQServer` is all that is
replaced. Tests of this kind run anywhere, and are an example for drivers of your own.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from zhinst.core import __version__ as zhinst_version
from zhinst.core import ziDAQServer
from zhinst.toolkit.driver.nodes.command_table_node import CommandTableNode

from instruments import hdawg
from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentInUse,
    InstrumentUnavailable,
)
from instruments.hdawg import HDAWG
from sequences.program import AwgProgram

SERIAL = "dev8001"
AWG = f"/{SERIAL}/awgs/0"
REFERENCE = f"/{SERIAL}/system/clocks/referenceclock"

INTEGER, ENUMERATED, VECTOR = "Integer (64 bit)", "Integer (enumerated)", "ZIVectorData"
KEYWORDS = {
    f"/{SERIAL}/dios/0/mode": ["manual", "awg_sequencer_commands"],
    f"/{SERIAL}/system/awg/channelgrouping": ["groups_of_2", "groups_of_4"],
    f"{REFERENCE}/source": ["internal", "external"],
    f"{REFERENCE}/status": ["locked", "error", "busy"],
    f"{AWG}/dio/strobe/slope": ["off", "rising_edge"],
    f"{AWG}/dio/valid/polarity": ["none", "low"],
}
TYPES = {
    "/zi/about/fullversion": "String",
    f"/{SERIAL}/features/devtype": "String",
    f"/{SERIAL}/features/options": "String",
    f"/{SERIAL}/system/clocks/sampleclock/freq": "Double",
    f"/{SERIAL}/sigouts/0/on": INTEGER,
    f"/{SERIAL}/sigouts/0/range": "Double",
    f"/{SERIAL}/sigouts/0/offset": "Double",
    f"{AWG}/enable": INTEGER,
    f"{AWG}/single": INTEGER,
    f"{AWG}/ready": INTEGER,
    f"{AWG}/elf/data": VECTOR,
    f"{AWG}/waveform/waves/0": VECTOR,
    f"{AWG}/commandtable/data": VECTOR,
    f"{AWG}/commandtable/schema": VECTOR,
    f"{AWG}/commandtable/status": INTEGER,
    f"{AWG}/dio/strobe/index": INTEGER,
    f"{AWG}/dio/valid/index": INTEGER,
    **dict.fromkeys(KEYWORDS, ENUMERATED),
}
SCHEMA = {
    "version": "1.2",
    "definitions": {
        "header": {"properties": {"version": {"type": "string"}}},
        "table": {
            "minItems": 0,
            "maxItems": 1024,
            "items": {
                "properties": {
                    "index": {"type": "integer"},
                    "waveform": {"properties": {"index": {"type": "integer"}}},
                }
            },
        },
    },
    "properties": {
        "header": {"$ref": "#/definitions/header"},
        "table": {"$ref": "#/definitions/table"},
    },
}
PROGRAM = AwgProgram(
    source="assignWaveIndex(1, placeholder(32), 2, placeholder(32), 0); executeTableEntry(0);",
    waveforms=(np.full((32, 2), 0.5),),
    command_table={"header": {"version": "1.2"}, "table": [{"index": 0, "waveform": {"index": 0}}]},
)


def describe(path: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "Node": path.upper(),
        "Description": "",
        "Properties": "Read, Write, Setting",
        "Type": TYPES[path],
        "Unit": "None",
    }
    if path in KEYWORDS:
        entry["Options"] = {
            str(value): f'"{name}": {name}' for value, name in enumerate(KEYWORDS[path])
        }
    return entry


@pytest.fixture
def values() -> dict[str, Any]:
    """What the mocked server answers; what is written is stored."""
    stored: dict[str, Any] = {path: 0 for path in TYPES}
    stored |= {
        "/zi/about/dataserver": "DataServer",
        "/zi/about/fullversion": zhinst_version,
        "/zi/devices/connected": SERIAL.upper(),
        "/zi/devices": json.dumps({SERIAL.upper(): {"STATUSFLAGS": 0}}),
        f"/{SERIAL}/features/devtype": "HDAWG8",
        f"/{SERIAL}/features/options": "",
        f"/{SERIAL}/system/clocks/sampleclock/freq": 2.4e9,
        f"{AWG}/ready": 1,
        f"{AWG}/commandtable/schema": json.dumps(SCHEMA),
        f"{AWG}/commandtable/status": 1,
    }
    return stored


@pytest.fixture
def server(mocker, values):
    """An autospec of the vendor's server, so that a wrong call of it is noticed."""
    mock = mocker.create_autospec(ziDAQServer, instance=True)
    mock.host, mock.port = "mock", 8004

    def write(path_or_items, value=None):
        items = [(path_or_items, value)] if isinstance(path_or_items, str) else path_or_items
        for path, item in items:
            values[path.lower()] = item

    def sync_set_int(path, value):
        write(path, value)
        return values[path.lower()]

    def read(paths, **_):
        return {
            path: (
                [{"timestamp": 0, "vector": values[path]}]
                if TYPES[path] == VECTOR
                else {"timestamp": [0], "value": [values[path]]}
            )
            for path in paths.lower().split(",")
        }

    mock.listNodesJSON.side_effect = lambda pattern, **_: json.dumps(
        {path: describe(path) for path in TYPES if path.startswith(pattern.lower().rstrip("*"))}
    )
    for getter in (mock.getInt, mock.getDouble, mock.getString):
        getter.side_effect = lambda path: values[path.lower()]
    mock.get.side_effect = read
    mock.set.side_effect = write
    mock.syncSetInt.side_effect = sync_set_int
    return mock


@pytest.fixture
def instrument(server, tmp_path):
    opened = HDAWG("awg", SERIAL, connection=server, lock_directory=tmp_path)
    yield opened
    opened.close()


def written(server) -> list[str]:
    """Paths in the order in which they were written."""
    paths: list[str] = []
    for call in server.set.call_args_list:
        items = [call.args[:2]] if isinstance(call.args[0], str) else call.args[0]
        paths += [path.lower() for path, _ in items]
    return paths


def test_the_program_goes_first_then_waveforms_then_the_table(instrument, server, values):
    compiled = instrument.load(0, PROGRAM)
    assert written(server) == [
        f"{AWG}/elf/data",
        f"{AWG}/waveform/waves/0",
        f"{AWG}/commandtable/data",
    ]
    assert values[f"{AWG}/elf/data"] == compiled.elf
    assert values[f"{AWG}/waveform/waves/0"].tolist() == [16384] * 64
    assert json.loads(values[f"{AWG}/commandtable/data"]) == PROGRAM.command_table


def test_starting_sets_single_before_enable(instrument, server):
    instrument.load(0, PROGRAM)
    server.set.reset_mock()
    instrument.start(0)
    assert written(server) == [f"{AWG}/single"]
    server.syncSetInt.assert_called_once_with(f"{AWG}/enable", 1)


@pytest.mark.parametrize(
    ("path", "changed", "problem"),
    [
        (f"{AWG}/elf/data", b"other", "the program reads back changed"),
        (f"{AWG}/waveform/waves/0", np.zeros(64, np.uint16), "waveform 0 reads back changed"),
        (f"{AWG}/commandtable/data", "{}", "the command table reads back changed"),
    ],
)
def test_what_reads_back_changed_is_refused(instrument, server, values, path, changed, problem):
    store = server.set.side_effect

    def forgetful(path_or_items, value=None):
        store(path_or_items, value)
        if path in values:
            values[path] = changed

    server.set.side_effect = forgetful
    with pytest.raises(DeviceRefused, match=f"dev8001, core 0: {problem}"):
        instrument.load(0, PROGRAM)
    assert instrument.cores[0].loaded is None
    with pytest.raises(ConfigurationRefused, match="load a program first"):
        instrument.start(0)


@pytest.mark.parametrize(
    ("path", "value", "error", "problem"),
    [
        (f"{AWG}/enable", 1, ConfigurationRefused, "is running; stop it first"),
        (
            f"/{SERIAL}/system/awg/channelgrouping",
            1,
            ConfigurationRefused,
            "set system/awg/channelgrouping to groups_of_2",
        ),
        (
            f"/{SERIAL}/system/clocks/sampleclock/freq",
            2.0e9,
            ConfigurationRefused,
            "the sample clock is 2e",
        ),
    ],
)
def test_nothing_is_written_to_an_instrument_set_otherwise(
    instrument, server, values, path, value, error, problem
):
    values[path] = value
    with pytest.raises(error, match=problem):
        instrument.load(0, PROGRAM)
    assert written(server) == []


def test_a_core_that_does_not_get_ready(instrument, values, monkeypatch):
    monkeypatch.setattr(hdawg, "READY_TIMEOUT_S", -1.0)
    values[f"{AWG}/ready"] = 0
    with pytest.raises(DeviceRefused, match="ready did not change"):
        instrument.load(0, PROGRAM)


# --- the reference clock ------------------------------------------------------------------------


def test_a_reference_that_is_locked_is_left_alone(instrument, server, values):
    values[f"{REFERENCE}/source"] = 1
    instrument.lock_reference("external")
    assert server.syncSetInt.call_args_list == []
    assert written(server) == []


@pytest.mark.parametrize("states", [["locked"], ["busy", "busy", "locked"]])
def test_a_reference_is_waited_for(instrument, server, values, states, monkeypatch):
    numbers = iter([KEYWORDS[f"{REFERENCE}/status"].index(state) for state in states])
    store = server.syncSetInt.side_effect

    def go_on(*arguments):
        values[f"{REFERENCE}/status"] = next(numbers)
        return store(*arguments) if len(arguments) == 2 else None

    server.syncSetInt.side_effect = go_on
    monkeypatch.setattr("time.sleep", go_on)
    instrument.lock_reference("external")
    assert values[f"{REFERENCE}/source"] == 1
    assert next(numbers, None) is None


def test_a_reference_that_is_not_there(instrument, server, values):
    store = server.syncSetInt.side_effect

    def fall_back(path, value):
        store(path, value)
        values[f"{REFERENCE}/status"], values[f"{REFERENCE}/source"] = 1, 0
        return value

    server.syncSetInt.side_effect = fall_back
    with pytest.raises(DeviceRefused, match="is internal and error, not external and locked"):
        instrument.lock_reference("external")


def test_a_reference_that_is_never_locked(instrument, values, monkeypatch):
    monkeypatch.setattr(hdawg, "LOCK_TIMEOUT_S", -1.0)
    values[f"{REFERENCE}/status"] = 2
    with pytest.raises(DeviceRefused, match=r"dev8001, reference clock external: .*status"):
        instrument.lock_reference("external")


def test_there_is_no_such_reference(instrument, server):
    with pytest.raises(ValueError, match="atomic"):
        instrument.lock_reference("atomic")
    server.syncSetInt.assert_not_called()


def test_a_refused_command_table(instrument, values):
    values[f"{AWG}/commandtable/status"] = 8
    with pytest.raises(DeviceRefused, match="JSON parsing error"):
        instrument.load(0, PROGRAM)


def test_a_table_is_checked_against_the_schema_of_the_instrument(instrument, mocker):
    schema = mocker.patch.object(CommandTableNode, "load_validation_schema", autospec=True)
    schema.return_value = {**SCHEMA, "required": ["userString"]}
    with pytest.raises(ConfigurationRefused, match="'userString' is a required property"):
        instrument.load(0, PROGRAM)


def test_a_sequencer_that_does_not_start_or_stop(instrument, server):
    instrument.load(0, PROGRAM)
    server.syncSetInt.side_effect = lambda path, value: 1 - value
    with pytest.raises(DeviceRefused, match="could not be enabled"):
        instrument.start(0)
    with pytest.raises(DeviceRefused, match="does not stop"):
        instrument.stop(0)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (f"/{SERIAL}/features/devtype", "MFLI", "is a MFLI, not an HDAWG"),
        ("/zi/about/fullversion", "25.1.0.1", "LabOne version is smaller"),
        ("/zi/about/fullversion", "99.1.0.1", "zhinst.core version is smaller"),
        (
            "/zi/devices",
            json.dumps({SERIAL.upper(): {"STATUSFLAGS": 1 << 4}}),
            "Firmware does not match",
        ),
        ("/zi/devices", json.dumps({SERIAL.upper(): {"STATUSFLAGS": 1 << 8}}), "updating"),
    ],
)
def test_another_instrument_or_version_is_refused(server, values, tmp_path, path, value, problem):
    values[path] = value
    kept = []  # an error holds on to the instrument that failed, which must not stay open
    for _ in range(2):
        with pytest.raises(IncompatibleInstrument, match=problem) as caught:
            HDAWG("awg", SERIAL, connection=server, lock_directory=tmp_path)
        kept.append(caught)


def test_a_server_that_does_not_answer(mocker, tmp_path):
    server_class = mocker.patch("zhinst.toolkit.session.core.ziDAQServer", autospec=True)
    server_class.side_effect = RuntimeError("Unable to connect socket")
    with pytest.raises(InstrumentUnavailable, match=r"no data server at lab-pc:8010: Unable"):
        HDAWG("awg", SERIAL, "lab-pc", 8010, lock_directory=tmp_path)


def test_without_a_given_connection_one_is_opened_to_the_host(mocker, server, tmp_path):
    server_class = mocker.patch("zhinst.toolkit.session.core.ziDAQServer", return_value=server)
    instrument = HDAWG("awg", SERIAL, "lab-pc", 8010, lock_directory=tmp_path)
    instrument.close()
    assert server_class.call_args.args[:2] == ("lab-pc", 8010)


def test_an_instrument_is_opened_once(instrument, server, tmp_path):
    with pytest.raises(InstrumentInUse, match="hdawg-dev8001 is open already"):
        HDAWG("other", SERIAL, connection=server, lock_directory=tmp_path)
