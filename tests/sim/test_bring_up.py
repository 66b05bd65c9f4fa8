"""The order in which docs/hardware.md brings up a node, on simulated instruments."""

from __future__ import annotations

import pytest
from qcodes.instrument import Instrument

from drivers.nv_setup import NVInstruments, NVSettings
from instruments.nv_controller import PROCESS, ControllerSettings, NVController
from instruments.station import Connections, open_station, station_file
from sim.adwin.dll import SimulatedADwin
from sim.adwin.hardware import InMemoryHardware
from sim.adwin.options import ProcessorModel
from sim.adwin.system import AdwinSystem
from sim.hdawg import SimulatedDataServer, SimulatedHdawg
from sim.heralding import SimulatedCpld
from sim.serial_line import SerialLine
from sim.timetagger import SimulatedTaggerLibrary
from sim.visa import SimulatedSource

PATIENCE_US = 10_000


@pytest.fixture
def system():
    yield AdwinSystem(
        InMemoryHardware(),
        ProcessorModel.t12().model_copy(update={"external_clock_cycles": 1_000}),
    )
    Instrument.close_all()


def test_a_node_that_was_brought_up_by_hand_can_be_set_up(system):
    connections = Connections(
        simulated={
            "adwin": SimulatedADwin(system, 1, use_numpy_arrays=True),
            "awg": SimulatedDataServer([SimulatedHdawg("dev8001")]),
            "heralding": SerialLine(SimulatedCpld()),
            "timetagger": SimulatedTaggerLibrary(),
        }
    )

    def sleep(time_s: float) -> None:
        system.run_for_ns(time_s * 1e9)

    # Steps 4 and 5: open, boot, load the program and look whether it counts.
    with open_station(station_file("client", simulation=True), connections) as station:
        station.adwin.boot()
        station.snapshot()
        controller = NVController(station.adwin)
        controller.load()
        controller.configure(ControllerSettings(links=0))
        controller.start(sleep)
        # The first events come when the program has prepared itself.
        sleep(1e-3)
        ticks = controller.read("ticks")
        sleep(1e-3)
        assert controller.read("ticks") == ticks + 100
        assert controller.state == "idle"
        # Step 7: a charge check, with the voltages of the Station file and no light.
        for laser in station.lasers.values():
            laser.to_nominal()
        assert station.adwin.get_data(21)[:5].tolist() == [1.0] * 5
        controller.request_charge_check()
        sleep(PATIENCE_US * 1e-6)
        assert controller.read("failed_charge_checks") == controller.read("max_repumps") + 1
        # Step 8: everything, in place of the program that runs.
        instruments = NVInstruments(station, sleep=sleep)
        instruments.set_up(NVSettings())
        assert instruments.controller.read("links") == ControllerSettings().links
        assert station.adwin.processes[PROCESS - 1].status() == "running"
        assert SimulatedSource("TCPIP::mw-client::INSTR").on
        instruments.close()
        assert not SimulatedSource("TCPIP::mw-client::INSTR").on
