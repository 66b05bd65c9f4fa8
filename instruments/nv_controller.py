"""The ADbasic program of an NV node on an ADwin-Pro II: its parameters, logs and counters.

The program is ``adbasic/qdevice_nv.bas`` beside this module, which says what it does. Here its
DATA and PAR become QCoDeS parameters with limits, so that a snapshot shows them. The numbers of
the lines and modules are those of ``adbasic/qd_station.inc``. Not verified on hardware.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from qcodes.parameters import ParameterBase
from qcodes.validators import Ints

from instruments.adwin import BINARY_SUFFIXES, AdwinProII
from instruments.errors import DeviceRefused, IncompatibleInstrument

PROCESS: Final = 1
VERSION: Final = 1
"""What the program must say in PAR_80."""

TICK_EVENTS: Final = 10
"""One event per microsecond, one frame of the QNPU every 10 us (published)."""

DIO_MODULE: Final = 2
DAC_MODULE: Final = 3
COUNTER_MODULE: Final = 5
SPI_MODULE: Final = 7
REPUMP_DAC: Final = 1
E_DAC: Final = 2
A_DAC: Final = 3
GATED_A_DAC: Final = 4
PHOTON_COUNTER: Final = 1
CPLD_RESET_LINE: Final = 12
READY_LINE: Final = 13
SUCCESS_LINE: Final = 14
ACKNOWLEDGE_LINE: Final = 16
PLAYED_LINE: Final = 17
HERALD_LINE: Final = 18
DETECTOR_LINE: Final = 19
PEER_READY_LINE: Final = 20
PEER_SUCCESS_LINE: Final = 21
"""Wiring, as in ``qd_station.inc``; a test compares the two."""

PHOTON_LOG: Final = 31
CHECK_LOG: Final = 32
CHARGE_LOG: Final = 33
REQUEST_PAR: Final = 20
VERSION_PAR: Final = 80
START_POLLS: Final = 100
START_POLL_S: Final = 0.01
"""How long the program may take to prepare itself: 1 s."""

STOP_TIMEOUT_S: Final = 1.0

STATES: Final = (
    "idle",
    "charge",
    "repump",
    "pump",
    "playing",
    "readout",
    "held",
    "neighbour",
    "countdown",
    "attempts",
    "stopping",
    "agree",
    "agreed",
)
"""Names of the program's states, by their number in PAR_3."""

MAX_US: Final = 1_000_000


@dataclass(frozen=True)
class ControllerSettings:
    """Parameters of the program, in the order of DATA_20. Times are whole microseconds.

    Attributes:
        cr_us: duration of a charge-resonance check (assumed).
        cr_threshold: photons at which a check passes (assumed; calibrated by `cr`).
        repump_us: light on an ionised centre (300 us: assumed).
        max_repumps: failed checks in a row after which the instruction fails.
        pump_us: from the AWG's INI to the end of spin pumping; longer than the AWG's window.
        readout_us: duration of a readout (assumed: fits the published segments).
        play_timeout_us: how long the AWG may take to play a word: longer than a decoupling
            block and than an attempt.
        sync_window_us: how long a node waits for its neighbour (assumed).
        start_delay_us: from the agreement of both nodes to the first attempt.
        batch_us: duration of a batch of attempts.
        agree_timeout_us: how long the two nodes may disagree on a herald.
        alpha_entry: entry of the waveform table that is an attempt.
        links: neighbours, 0 or 1.
        log_shots: 1 to keep photons and counts of every shot for the host.
    """

    cr_us: int = 15
    cr_threshold: int = 3
    repump_us: int = 300
    max_repumps: int = 20
    pump_us: int = 3
    readout_us: int = 190
    play_timeout_us: int = 1000
    sync_window_us: int = 500
    start_delay_us: int = 3
    batch_us: int = 9_842
    agree_timeout_us: int = 20
    alpha_entry: int = 112
    links: int = 1
    log_shots: int = 0


LIMITS: Final = {
    "cr_us": (1, MAX_US),
    "cr_threshold": (0, 100_000),
    "repump_us": (1, MAX_US),
    "max_repumps": (0, 1_000),
    "pump_us": (1, MAX_US),
    "readout_us": (1, MAX_US),
    "play_timeout_us": (200, MAX_US),
    "sync_window_us": (2, MAX_US),
    "start_delay_us": (1, MAX_US),
    "batch_us": (1, MAX_US),
    "agree_timeout_us": (5, MAX_US),
    "alpha_entry": (112, 127),
    "links": (0, 1),
    "log_shots": (0, 1),
}

COUNTERS: Final = {
    "ticks": 1,
    "corrupted_frames": 2,
    "state_number": 3,
    "instructions": 4,
    "hardware_failures": 5,
    "herald_mismatches": 6,
    "charge_checks": 7,
    "failed_charge_checks": 8,
    "batches": 9,
    "heralds": 10,
}
"""What the program counts, by the number of its PAR."""


class NVController:
    """The program on an ADwin.

    Args:
        adwin: booted.

    Attributes:
        adwin: the instrument; it gets the parameters of the program.
    """

    def __init__(self, adwin: AdwinProII) -> None:
        self.adwin = adwin
        self._process = adwin.processes[PROCESS - 1]
        self._parameters: dict[str, ParameterBase] = {}

    def load(self, binary: Path | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        """Load the program, after stopping what runs in its place; it does not start yet.

        Args:
            binary: what the vendor's compiler made of ``qdevice_nv.bas``; None for the one
                beside the source in this package.
            sleep: lets time pass, in seconds, while another program stops.

        Raises:
            InstrumentUnavailable: there is no such file.
            ConfigurationRefused: it is for another processor or process.
            DeviceRefused: the ADwin does not take it, or what runs does not stop.
        """
        if self._process.loaded is not None:
            self._process.stop()
            self._process.wait_until_stopped(STOP_TIMEOUT_S, sleep=sleep)
        suffix = f"{BINARY_SUFFIXES[self.adwin.processor_type]}{PROCESS}"
        if binary is None:
            with as_file(files("instruments") / "adbasic") as directory:
                self._process.load(directory / f"qdevice_nv{suffix}")
        else:
            self._process.load(binary)
        if not self._parameters:
            self._add_parameters()

    def _add_parameters(self) -> None:
        # Another driver of the same ADwin may have added them.
        known, add = self.adwin.parameters, self.adwin.add_data_element
        for index, field in enumerate(fields(ControllerSettings), start=1):
            name, unit = field.name, "us" if field.name.endswith("_us") else ""
            self._parameters[name] = known.get(name) or add(
                name, 20, index, vals=Ints(*LIMITS[name]), unit=unit
            )
        for name, index in COUNTERS.items():
            self._parameters[name] = known.get(name) or self.adwin.add_par(name, index)

    def configure(self, settings: ControllerSettings) -> None:
        """Set all parameters; while no instruction is executed."""
        for name, value in vars(settings).items():
            self._parameters[name].set(value)

    def set_heralds(self, outcomes: tuple[int, int], bell_codes: tuple[int, int]) -> None:
        """What a click of each of the two detectors stands for.

        Args:
            outcomes: for an ENT.
            bell_codes: for an ENM, the code of the Bell state.
        """
        self.adwin.set_data(23, list(outcomes))
        self.adwin.set_data(24, [1 + code for code in bell_codes])

    def start(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Start the program and make sure that it is the one this driver knows.

        Args:
            sleep: lets time pass, in seconds, while the program prepares itself.

        Raises:
            IncompatibleInstrument: it is another version.
        """
        # What an earlier program left there says nothing.
        self.adwin.set_par(VERSION_PAR, 0)
        self._process.start()
        for _ in range(START_POLLS):
            found = self.adwin.get_par(VERSION_PAR)
            if found:
                break
            sleep(START_POLL_S)
        if found != VERSION:
            self._process.stop()
            raise IncompatibleInstrument(
                f"{self.adwin.name}: the program in the ADwin says it is version {found}, and this "
                f"driver needs {VERSION}; compile instruments/adbasic/qdevice_nv.bas anew"
            )

    def stop(self) -> None:
        """Ask the program to stop; it switches the lasers off."""
        self._process.stop()

    def read(self, name: str) -> int:
        """A parameter or counter.

        Raises:
            KeyError: there is none of that name.
        """
        return int(self._parameters[name].get())

    @property
    def state(self) -> str:
        """What the program is doing, one of `STATES`."""
        number = self.read("state_number")
        if not 0 <= number < len(STATES):
            raise DeviceRefused(
                f"{self.adwin.name}: the program is in state {number}, which does not exist"
            )
        return STATES[number]

    def request_charge_check(self) -> None:
        """Have the program do a charge check when it has nothing else to do."""
        self.adwin.set_par(REQUEST_PAR, 1)

    def take_photon_log(self) -> NDArray[Any]:
        """First photon of each readout since the last call, us from its start, -1 for none.

        Shape (n,). Kept with ``log_shots`` only.
        """
        return self.adwin.get_fifo(PHOTON_LOG)

    def take_check_log(self) -> NDArray[Any]:
        """Photons in the first charge check of each INI and ENT since the last call, shape (n,).

        Kept with ``log_shots`` only.
        """
        return self.adwin.get_fifo(CHECK_LOG)

    def take_charge_log(self) -> NDArray[Any]:
        """For each readout since the last call: 1 if the first check after it passed, else 0."""
        log = self.adwin.get_fifo(CHARGE_LOG)
        return np.repeat(log & 1, log >> 1)
