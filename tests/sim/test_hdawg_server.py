"""The simulated data server under the vendor's own clients, zhinst-toolkit and -qcodes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from zhinst.core.errors import CoreError, DeviceNotFoundError, NotFoundError
from zhinst.qcodes import ZISession
from zhinst.toolkit import CommandTable, Session, Waveforms

from sim.hdawg import SimulatedDataServer, SimulatedHdawg
from sim.hdawg.command_table import SCHEMA, TableRefused, read_table
from tests.sim.hdawg_setup import SERIAL, compiled, ramp, small_program, table_text


@pytest.fixture
def server() -> SimulatedDataServer:
    return SimulatedDataServer([SimulatedHdawg(SERIAL), SimulatedHdawg("dev8002", "HDAWG4")])


@pytest.fixture
def device(server):
    return Session(server.host, connection=server).connect_device(SERIAL.upper())


def test_the_versions_fit(device):
    device.check_compatibility()
    assert device.device_type == "HDAWG8"
    assert len(device.awgs) == 4


def test_a_program_of_the_vendors_own_classes_goes_up_and_comes_back(device):
    program, awg = small_program(), device.awgs[0]
    info = awg.load_sequencer_program(program.source)
    assert info["messages"] == ""
    awg.ready.wait_for_state_change(1)
    waveforms = Waveforms()
    for index, samples in enumerate(program.waveforms):
        waveforms.assign_waveform(
            index, samples[:, 0].copy(), samples[:, 1].copy(), program.markers.get(index)
        )
    waveforms.validate(awg.waveform.descriptors())
    waveforms.validate(awg.elf.data())
    awg.write_to_waveform_memory(waveforms)
    read = awg.read_from_waveform_memory()
    assert set(read) == {0, 1}
    for index in read:
        assert np.max(np.abs(read[index][0] - waveforms[index][0])) < 1 / 32767
        assert np.max(np.abs(read[index][1] - waveforms[index][1])) < 1 / 32767
    assert np.array_equal(read[0][2], program.markers[0])
    table = CommandTable(awg.commandtable.load_validation_schema())
    table.update(dict(program.command_table))
    assert table.is_valid(raise_for_invalid=True)
    awg.commandtable.upload_to_device(table)
    assert awg.commandtable.check_status()
    assert awg.commandtable.load_from_device().as_dict()["table"] == program.command_table["table"]
    assert awg.sequencer.program().startswith("assignWaveIndex")
    assert 0 < awg.sequencer.memoryusage() < 0.01
    awg.enable_sequencer(single=True)
    assert awg.enable() == 1
    assert awg.sequencer.status() == 1
    awg.enable(0)
    assert awg.sequencer.status() == 0


def test_enabling_without_a_program_reads_back_0(device):
    with pytest.raises(RuntimeError, match="could not be enabled"):
        device.awgs[0].enable_sequencer(single=True)
    device.awgs[1].elf.data(compiled("wait(3);"))
    device.awgs[1].reset(1)
    assert device.awgs[1].ready() == 0
    with pytest.raises(RuntimeError, match="could not be enabled"):
        device.awgs[1].enable_sequencer(single=True)


def test_starting_again_at_the_end_is_refused(device):
    device.awgs[0].elf.data(compiled("wait(3);"))
    with pytest.raises(CoreError, match="set single to 1"):
        device.awgs[0].enable_sequencer(single=False)


def test_a_bad_program_leaves_the_core_empty(device):
    device.awgs[0].elf.data(compiled("wait(3);"))
    with pytest.raises(CoreError, match="not a compiled sequencer program"):
        device.awgs[0].elf.data(b"nonsense")
    assert device.awgs[0].ready() == 0


@pytest.mark.parametrize(
    ("index", "words", "problem"),
    [
        (2, np.zeros(96, np.uint16), "no program assigns waveform 2"),
        (1, np.zeros(95, np.uint16), "has 95 words; its slot has 96"),
        (0, np.zeros(64, np.uint16), "has 64 words; its slot has 96"),
    ],
)
def test_a_waveform_must_fit_its_slot(device, index, words, problem):
    device.awgs[0].elf.data(compiled(small_program().source))
    with pytest.raises(CoreError, match=problem):
        device.awgs[0].root.connection.set(f"/{SERIAL}/awgs/0/waveform/waves/{index}", words)


def test_waveforms_the_program_brings_are_in_memory(device):
    source = "wave w = ramp(64, -1, 1); assignWaveIndex(1, w, 2, -w, 0); executeTableEntry(0);"
    device.awgs[0].elf.data(compiled(source))
    first, second, markers = device.awgs[0].read_from_waveform_memory()[0]
    assert np.allclose(first, np.linspace(-1, 1, 64), atol=1 / 32767)
    assert np.allclose(second, -first, atol=1 / 32767)
    assert markers is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "not of type 'object'"),
        ("{}", "'header' is a required property"),
        ('{"header": {"version": "0.2"}}', "does not match"),
        (table_text([{"index": 1024}]), "1024 is greater than the maximum"),
        (table_text([{"index": 0, "waveform": {"index": 16000}}]), "16000 is greater"),
        (table_text([{"index": 0, "waveform": {"index": 0, "length": 40}}]), "not a multiple"),
        (table_text([{"index": 0, "waveform": {"index": 0, "length": 16}}]), "less than"),
        (table_text([{"index": 0, "amplitude0": {"value": 1.5}}]), "greater than"),
        (table_text([{"index": 0, "amplitude": {"value": 1.0}}]), "'amplitude' was unexpected"),
        (table_text([{"index": 0}, {"index": 0}]), "entry 0 is given twice"),
        (table_text([{"index": n % 1024} for n in range(1025)]), "is too long"),
    ],
)
def test_a_bad_table_is_only_seen_in_the_status(device, text, problem):
    table = device.awgs[0].commandtable
    table.upload_to_device(table_text([{"index": 5}]))
    with pytest.raises(TableRefused, match=problem):
        read_table(text)
    device.root.connection.set(f"/{SERIAL}/awgs/0/commandtable/data", text)
    assert table.status() == 8
    with pytest.raises(RuntimeError, match="JSON parsing error"):
        table.check_status()
    assert json.loads(table.data())["table"] == [{"index": 5}]


def test_a_partial_table_updates_and_a_cleared_one_is_empty(device):
    core = device.root.connection._devices[SERIAL].cores[0]
    partial = {"header": {"version": "1.2", "partial": True}, "table": [{"index": 6}]}
    device.awgs[0].commandtable.upload_to_device(table_text([{"index": 5}]))
    device.awgs[0].commandtable.upload_to_device(json.dumps(partial))
    assert set(core._entries) == {5, 6}
    device.awgs[0].commandtable.clear(1)
    assert device.awgs[0].commandtable.status() == 0
    assert not core._entries


def test_the_schema_is_one_the_vendors_class_can_use():
    table = CommandTable(SCHEMA)
    table.table[3].waveform.index = 7
    table.table[3].phase0.value = 22.5
    table.table[3].phase0.increment = True
    assert table.as_dict() == {
        "header": {"version": "1.2"},
        "table": [
            {
                "index": 3,
                "waveform": {"index": 7},
                "phase0": {"value": 22.5, "increment": True},
            }
        ],
    }


def test_transactions_wildcards_and_deep_settings(device):
    with device.set_transaction():
        device.sigouts["*"].on(1)
        device.sigouts[3].range(0.3)
    assert dict(device.sigouts["*"].on()) == {f"/{SERIAL}/sigouts/{n}/on": 1 for n in range(8)}
    assert device.sigouts[3].range() == 0.4
    assert device.sigouts[3].range(2.5, deep=True) == 3.0
    device.dios[0].mode("awg_sequencer_commands", deep=True)
    assert device.dios[0].mode().name == "awg_sequencer_commands"


def test_changes_can_be_polled(server, device):
    device.sigouts[0].on.subscribe()
    device.sigouts[0].on(1)
    device.sigouts[0].on(0)
    device.sigouts[1].on(1)
    polled = server.poll(flat=True)
    assert {path: list(data["value"]) for path, data in polled.items()} == {
        f"/{SERIAL}/sigouts/0/on": [1, 0]
    }
    assert server.poll(flat=True) == {}
    device.sigouts[0].on.unsubscribe()
    device.sigouts[0].on(1)
    assert server.poll(flat=True) == {}


def test_qcodes_snapshots_without_a_leading_slash(server):
    session = ZISession(server.host, connection=server, new_session=True)
    instrument = session.connect_device("dev8002")
    try:
        instrument.sigouts[1].range(2.0)
        snapshot = instrument.snapshot(update=True)
        outputs = snapshot["submodules"]["sigouts"]["channels"]
        name = next(name for name in outputs if name.endswith("sigouts1"))
        assert outputs[name]["parameters"]["range"]["value"] == 2.0
        assert set(server.get("dev8002/sigouts/*/range", flat=True)) == {
            f"/dev8002/sigouts/{n}/range" for n in range(4)
        }
    finally:
        instrument.close()
        session.close()


def test_what_is_not_there_is_not_found(server):
    with pytest.raises(DeviceNotFoundError, match="no dev1 at simulated-"):
        server.connectDevice("dev1", "1GbE")
    with pytest.raises(NotFoundError, match="dev8001 is not connected"):
        server.getInt("/dev8001/awgs/0/enable")
    server.connectDevice("dev8001", "1GbE")
    with pytest.raises(NotFoundError, match="no node matches"):
        server.set("/dev8001/awgs/0/flux", 1)
    with pytest.raises(KeyError, match="DEV9"):
        Session(server.host, connection=server).connect_device("dev9")
    server.disconnectDevice("dev8001")
    with pytest.raises(NotFoundError, match="dev8001 is not connected"):
        server.getInt("/dev8001/awgs/0/enable")


def test_values_can_be_had_as_a_tree(server):
    server.connectDevice("dev8001", "1GbE")
    tree = server.get("/dev8001/sigouts/0", flat=False)
    assert tree["dev8001"]["sigouts"]["0"]["range"]["value"][0] == 1.0


def test_the_output_switch_and_amplitude_act(device):
    simulated = device.root.connection._devices[SERIAL]
    wave = ramp(32, 5)
    device.awgs[0].elf.data(
        compiled("assignWaveIndex(1,placeholder(32),2,placeholder(32),0); executeTableEntry(0);")
    )
    waveforms = Waveforms()
    waveforms.assign_waveform(0, wave[:, 0].copy(), wave[:, 1].copy())
    device.awgs[0].write_to_waveform_memory(waveforms)
    device.awgs[0].commandtable.upload_to_device(
        table_text([{"index": 0, "waveform": {"index": 0}}])
    )
    device.awgs[0].enable_sequencer(single=True)
    simulated.run_until(10_000)
    (play,) = simulated.cores[0].player.timeline.plays()
    window = (play.start_sample, play.stop_sample)
    assert not simulated.output(0, *window).any()
    device.sigouts[1].on(1)
    device.awgs[0].outputs[1].amplitude(0.5)
    shown = simulated.output(0, *window)
    assert not shown[:, 0].any()
    assert np.allclose(shown[:, 1], wave[:, 1] / 2, atol=1 / 32767)
