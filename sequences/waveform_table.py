"""The waveform table of an NV node: 170 entries as typed columns.

An entry is what the AWG plays for one physical instruction (Delle Donne et al.).
The table holds recipes, one row an entry; waveforms are sampled from them. Wave index,
command table index and entry number are the same.

=========  ==================  =================================================================
entry      instruction word    what is played
=========  ==================  =================================================================
0..15      (none)              pi about X for decoupling, delayed by 0..15 samples
16..31     (none)              pi about Y for decoupling, delayed by 0..15 samples
32..63     ``n << 4 | 2``      SQG, rotation by n pi/16 about X, n = entry - 32
64..95     ``(32+n) << 4 | 2``  SQG, rotation by n pi/16 about Y, n = entry - 64
96         ``1``               INI: window of the spin-pump laser
97         ``4``               MSR: silence; the ADwin reads out when it sees `Marker.PLAYED`
98..111    (none)              reserved: silence
112..127   ``5``               ENT, ENM: one attempt; the entry chooses alpha
128..169   (none)              reserved: silence
=========  ==================  =================================================================

So the entry of an SQG word is ``32 + (word >> 4)`` on the processor that translates. n = 0
is silence as long as a rotation. The words are those for qubit 0, as the QNPU sends them; a
rotation about Z has no entry (the QDriver composes it of three). PMG plays nothing: the
basis of an ENM is SQG entries after the attempt.

All rotations have the same length and their pulse in the middle, so that decoupling
continues after each of them alike. Markers steer what is not a microwave: see `Marker`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from sequences.decoupling import DecouplingPlan
from sequences.errors import TableError
from sequences.hyperfine import HYPERFINE_HZ, attempt_angle
from sequences.program import (
    GRANULE_SAMPLES,
    MARKERS,
    MIN_PLAY_SAMPLES,
    SAMPLE_RATE_HZ,
    STREAMED_FROM_SAMPLES,
    WAVE_MEMORY_SAMPLES,
    padded,
    samples,
)
from sequences.pulses import (
    ANGLE_STEPS,
    Axis,
    Pulse,
    PulseCalibration,
    hermite_envelope,
    rotation,
    rotation_by_steps,
)

ENTRIES: Final = 170
"""Number of entries (Delle Donne et al.)."""

FIRST_X_COPY: Final = 0
FIRST_Y_COPY: Final = FIRST_X_COPY + GRANULE_SAMPLES
FIRST_ROTATION: Final = FIRST_Y_COPY + GRANULE_SAMPLES
INITIALISATION: Final = FIRST_ROTATION + 2 * ANGLE_STEPS
READOUT: Final = INITIALISATION + 1
FIRST_ATTEMPT: Final = 112
MAX_ALPHAS: Final = 16

NO_WORD: Final = -1
_INI, _SQG, _MSR, _ENT, _ENM = 1, 2, 4, 5, 6


class EntryKind(IntEnum):
    """What an entry is for."""

    RESERVED = 0
    DECOUPLING = 1
    ROTATION = 2
    INITIALISATION = 3
    READOUT = 4
    ATTEMPT = 5


class Marker(IntEnum):
    """What each marker bit of a core switches; which connector carries it is wiring.

    `PLAYED` is wired back to an input of the ADwin: it is high while an instruction that
    ends there is really being played, which may be a queue of plays later than its
    acknowledge. Attempts have none: the ADwin hears of them from the heralding station.
    """

    OPTICAL_PULSE = 0
    DETECTION_GATE = 1
    SPIN_PUMP = 2
    PLAYED = 3


PLAYED_NS: Final = 200.0
"""Window of `Marker.PLAYED` in an initialisation and a readout. Assumed to be long enough for
the edge detector of the ADwin's digital inputs."""


class Window(NamedTuple):
    """Where a marker is high: from ``start`` up to, not including, ``stop``, in samples."""

    marker: Marker
    start: int
    stop: int


@dataclass(frozen=True)
class AttemptTiming:
    """One attempt of single-photon entanglement, up to the detection gate. All assumed.

    Spin pump, then the microwave pulse that sets alpha, then the optical pi pulse, whose
    photon is looked for in the detection gate. The gate is opened at the heralding
    station, so it is later by the way of the light.

    Attributes:
        pump_ns: window of the spin-pump laser.
        pump_to_alpha_ns: from its end to the start of the microwave pulse.
        alpha_to_optical_ns: from the end of that pulse (of the longer kind, so that the
            optical pulse does not move with alpha) to the optical pulse.
        optical_ns: marker that fires the optical pulse.
        optical_to_gate_ns: from the start of the optical pulse to the gate.
        gate_ns: the detection gate; 25 to 200 ns in the field.
    """

    pump_ns: float = 1500.0
    pump_to_alpha_ns: float = 300.0
    alpha_to_optical_ns: float = 50.0
    optical_ns: float = 10.0
    optical_to_gate_ns: float = 150.0
    gate_ns: float = 100.0

    def __post_init__(self) -> None:
        for column in fields(self):
            _check_duration_ns(f"AttemptTiming.{column.name}", getattr(self, column.name))


@dataclass(frozen=True)
class TableSettings:
    """What a waveform table is built from.

    Attributes:
        calibration: of the microwave pulses.
        spacing_samples: of the decoupling pulses, centre to centre.
        shifted_copies: how many different delays the copies have: 16, or 8, 4, 2 or 1 to
            measure what the copies are good for. With fewer, a copy has the next lower delay.
        alphas: bright-state populations of the attempts, entry `FIRST_ATTEMPT` onwards. The
            default makes a fidelity of 0.72 with the efficiencies assumed for the simulated
            node. None, for a node that is not to be entangled: then the decoupling may be
            faster than the decision on a herald.
        attempt: timing of an attempt.
        hyperfine_hz: splitting of the 14N lines, over which an alpha is averaged.
        initialisation_ns: laser window of INI. Assumed.

    Raises:
        TableError: a number of copies, of alphas or a duration is out of range.
    """

    calibration: PulseCalibration = field(default_factory=PulseCalibration)
    spacing_samples: int = DecouplingPlan.spacing_samples
    shifted_copies: int = GRANULE_SAMPLES
    alphas: tuple[float, ...] = (0.2256,)
    attempt: AttemptTiming = field(default_factory=AttemptTiming)
    hyperfine_hz: float = HYPERFINE_HZ
    initialisation_ns: float = 2000.0

    def __post_init__(self) -> None:
        if self.shifted_copies not in {1, 2, 4, 8, 16}:
            raise TableError(f"{self.shifted_copies} shifted copies; choose 16, 8, 4, 2 or 1")
        if len(self.alphas) > MAX_ALPHAS:
            raise TableError(f"{len(self.alphas)} alphas; there are entries for {MAX_ALPHAS}")
        _check_duration_ns("initialisation_ns", self.initialisation_ns)

    @property
    def plan(self) -> DecouplingPlan:
        """Decoupling with this spacing and pi pulse."""
        return DecouplingPlan(self.spacing_samples, self.calibration.pi_samples)


@dataclass(frozen=True)
class Limits:
    """What a column of the table can hold: type, least and greatest value, shape of a row."""

    dtype: DTypeLike
    minimum: float
    maximum: float
    row_shape: tuple[int, ...] = ()


MAX_ENTRY_SAMPLES: Final = 2**18
"""Longest entry, 109 us. Bounds the table; the AWG's main memory would hold more."""

_POSITION: Final = Limits(np.uint32, 0, MAX_ENTRY_SAMPLES)
_MARKER_POSITION: Final = Limits(np.uint32, 0, MAX_ENTRY_SAMPLES, (MARKERS,))


@dataclass(frozen=True, eq=False)
class WaveformTable:
    """The table, one array a column, one row an entry. Columns are read-only.

    Attributes:
        kind: an `EntryKind`.
        word: physical instruction word for qubit 0, or `NO_WORD`.
        length_samples: of the entry.
        pulse_start: first sample of the microwave pulse.
        pulse_samples: length of the pulse; 0 for none.
        coefficient: c of its Hermite envelope.
        amplitude: factor of its envelope, units of full scale.
        axis: an `Axis`: channel I or Q.
        marker_start: shape (n_entries, 4), first sample of each marker's window.
        marker_stop: shape (n_entries, 4), the sample after its last; equal to start for none.
        settings: what the table was built from.

    Raises:
        TableError: a column is malformed or out of range, an entry cannot be played, or the
            table is larger than the waveform cache.
    """

    kind: Annotated[NDArray[np.uint8], Limits(np.uint8, 0, max(EntryKind))]
    word: Annotated[NDArray[np.int32], Limits(np.int32, NO_WORD, 2**20 - 1)]
    length_samples: Annotated[
        NDArray[np.uint32], Limits(np.uint32, MIN_PLAY_SAMPLES, MAX_ENTRY_SAMPLES)
    ]
    pulse_start: Annotated[NDArray[np.uint32], _POSITION]
    pulse_samples: Annotated[NDArray[np.uint32], _POSITION]
    coefficient: Annotated[NDArray[np.float64], Limits(np.float64, 0, 1)]
    amplitude: Annotated[NDArray[np.float64], Limits(np.float64, -1, 1)]
    axis: Annotated[NDArray[np.uint8], Limits(np.uint8, 0, max(Axis))]
    marker_start: Annotated[NDArray[np.uint32], _MARKER_POSITION]
    marker_stop: Annotated[NDArray[np.uint32], _MARKER_POSITION]
    settings: TableSettings = field(default_factory=TableSettings)

    def __post_init__(self) -> None:
        for name, limits in COLUMNS.items():
            object.__setattr__(self, name, _checked_column(name, getattr(self, name), limits))
        self._check_entries()
        if self.wave_memory_fraction > 1:
            raise TableError(
                f"the table takes {self.wave_memory_fraction:.3f} of the waveform cache; shorten "
                "the pulses or the attempt, or use fewer alphas"
            )

    @property
    def wave_memory_fraction(self) -> float:
        """Part of the core's waveform cache the table takes."""
        cached = np.minimum(self.length_samples, STREAMED_FROM_SAMPLES)
        return 2 * int(cached.sum(dtype=np.int64)) / WAVE_MEMORY_SAMPLES

    def waveform(self, entry: int) -> NDArray[np.float64]:
        """I and Q of an entry, shape (length_samples, 2), units of full scale."""
        waveform = np.zeros((int(self.length_samples[entry]), 2))
        count = int(self.pulse_samples[entry])
        if count:
            start = int(self.pulse_start[entry])
            envelope = hermite_envelope(count, float(self.coefficient[entry]))
            waveform[start : start + count, self.axis[entry]] = self.amplitude[entry] * envelope
        return waveform

    def marker_words(self, entry: int) -> NDArray[np.uint8] | None:
        """Marker bits of every sample, shape (length_samples,); None if no marker is used."""
        if not self.has_markers(entry):
            return None
        words = np.zeros(int(self.length_samples[entry]), dtype=np.uint8)
        for marker in Marker:
            start, stop = self.marker_start[entry, marker], self.marker_stop[entry, marker]
            words[start:stop] |= 1 << marker
        return words

    def has_markers(self, entry: int) -> bool:
        """Whether any marker is high during an entry."""
        return bool(np.any(self.marker_stop[entry] > self.marker_start[entry]))

    def command_table(self) -> dict[str, Any]:
        """The command table (JSON schema 1.x): entry k plays wave k."""
        return {
            "header": {"version": "1.2"},
            "table": [{"index": entry, "waveform": {"index": entry}} for entry in range(ENTRIES)],
        }

    def _check_entries(self) -> None:
        pulse_stop = self.pulse_start.astype(np.int64) + self.pulse_samples
        ends = self.marker_stop.max(axis=1)
        for wrong, what in (
            (
                self.length_samples % GRANULE_SAMPLES != 0,
                f"has a length that is no multiple of {GRANULE_SAMPLES} samples; pad it",
            ),
            (pulse_stop > self.length_samples, "has a pulse beyond its end; lengthen it"),
            (ends > self.length_samples, "has a marker window beyond its end; lengthen it"),
            (
                np.any(self.marker_stop < self.marker_start, axis=1),
                "has a marker window that ends before it starts; swap them",
            ),
        ):
            if np.any(wrong):
                raise TableError(f"waveform table entry {int(np.argmax(wrong))} {what}")


COLUMNS: Final[dict[str, Limits]] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(WaveformTable, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}
"""Every column of the table with its hardware limits."""


def build_table(settings: TableSettings) -> WaveformTable:
    """The waveform table of an NV node.

    Raises:
        SequenceError: a pulse, the decoupling or an entry does not fit.
    """
    rows = [_row(EntryKind.RESERVED, MIN_PLAY_SAMPLES)] * ENTRIES
    plan = settings.plan
    coarseness = GRANULE_SAMPLES // settings.shifted_copies
    for axis, first in ((Axis.X, FIRST_X_COPY), (Axis.Y, FIRST_Y_COPY)):
        pulse = rotation_by_steps(ANGLE_STEPS // 2, axis, settings.calibration)
        for shift in range(GRANULE_SAMPLES):
            delay = shift - shift % coarseness
            rows[first + shift] = _row(EntryKind.DECOUPLING, plan.slot_samples, pulse, delay)
    length = rotation_samples(settings)
    # Low again before the entry ends, so that every rotation makes an edge of its own.
    rotation_played = (Window(Marker.PLAYED, 0, length - GRANULE_SAMPLES),)
    for axis in Axis:
        for steps in range(ANGLE_STEPS):
            argument = axis * ANGLE_STEPS + steps
            pulse = rotation_by_steps(steps, axis, settings.calibration)
            rows[FIRST_ROTATION + argument] = _row(
                EntryKind.ROTATION,
                length,
                pulse if steps else None,
                (length - pulse.n_samples) // 2,
                rotation_played,
                word=argument << 4 | _SQG,
            )
    played = Window(Marker.PLAYED, 0, samples(PLAYED_NS))
    pump = Window(Marker.SPIN_PUMP, 0, samples(settings.initialisation_ns))
    rows[INITIALISATION] = _silent_row(EntryKind.INITIALISATION, (pump, played), _INI)
    rows[READOUT] = _silent_row(EntryKind.READOUT, (played,), _MSR)
    for place, alpha in enumerate(settings.alphas):
        rows[FIRST_ATTEMPT + place] = _attempt_row(alpha, settings)
    columns = {name: np.array([row[name] for row in rows]) for name in COLUMNS}
    return WaveformTable(**columns, settings=settings)


def rotation_samples(settings: TableSettings) -> int:
    """Length of a rotation's entry; its pulse is in the middle."""
    return padded(max(settings.calibration.pi_samples, settings.calibration.pi_half_samples))


def attempt_alpha_centre(settings: TableSettings) -> int:
    """From the start of an attempt's entry to the middle of the pulse that sets alpha."""
    timing = settings.attempt
    slot = max(settings.calibration.pi_samples, settings.calibration.pi_half_samples)
    return samples(timing.pump_ns) + samples(timing.pump_to_alpha_ns) + slot // 2


def attempt_optical_start(settings: TableSettings) -> int:
    """From the start of an attempt's entry to the optical pulse, the same for every alpha."""
    slot = max(settings.calibration.pi_samples, settings.calibration.pi_half_samples)
    after_alpha = samples(settings.attempt.alpha_to_optical_ns)
    return attempt_alpha_centre(settings) + slot // 2 + after_alpha


def entry_of_word(word: int, alpha_index: int = 0) -> int:
    """The entry that plays a physical instruction word.

    Args:
        word: as the QNPU sends it, 20 bits.
        alpha_index: for ENT and ENM, which of the table's alphas to use.

    Raises:
        TableError: no entry plays this word: another qubit, a rotation about Z, or an
            instruction that plays nothing.
    """
    opcode, argument, qubits = word & 0xF, word >> 4 & 0xFF, word >> 12
    if qubits == 0:
        if opcode == _SQG and argument < 2 * ANGLE_STEPS:
            return FIRST_ROTATION + argument
        if opcode == _INI and not argument:
            return INITIALISATION
        if opcode == _MSR and not argument:
            return READOUT
        # The argument of ENT and ENM is a link, which is no business of the AWG.
        if opcode in {_ENT, _ENM} and 0 <= alpha_index < MAX_ALPHAS:
            return FIRST_ATTEMPT + alpha_index
    raise TableError(
        f"no entry plays instruction word {word:#07x} (alpha {alpha_index}); there are entries "
        "for INI, MSR, ENT, ENM and for SQG about X and Y, all on qubit 0"
    )


def _row(
    kind: EntryKind,
    length_samples: int,
    pulse: Pulse | None = None,
    pulse_start: int = 0,
    windows: tuple[Window, ...] = (),
    word: int = NO_WORD,
) -> dict[str, Any]:
    start, stop = [0] * MARKERS, [0] * MARKERS
    for window in windows:
        start[window.marker], stop[window.marker] = window.start, window.stop
    return {
        "kind": kind,
        "word": word,
        "length_samples": length_samples,
        "pulse_start": pulse_start if pulse else 0,
        "pulse_samples": pulse.n_samples if pulse else 0,
        "coefficient": pulse.coefficient if pulse else 0.0,
        "amplitude": pulse.amplitude if pulse else 0.0,
        "axis": pulse.axis if pulse else Axis.X,
        "marker_start": start,
        "marker_stop": stop,
    }


def _silent_row(kind: EntryKind, windows: tuple[Window, ...], word: int) -> dict[str, Any]:
    return _row(kind, _length_for(windows), windows=windows, word=word)


def _length_for(windows: tuple[Window, ...]) -> int:
    # A sample more, so that every marker is low again when the entry ends.
    return padded(max(window.stop for window in windows) + 1)


def _attempt_row(alpha: float, settings: TableSettings) -> dict[str, Any]:
    timing = settings.attempt
    angle = attempt_angle(alpha, settings.calibration, settings.hyperfine_hz)
    pulse = rotation(angle, Axis.X, settings.calibration)
    optical = attempt_optical_start(settings)
    gate = optical + samples(timing.optical_to_gate_ns)
    windows = (
        Window(Marker.SPIN_PUMP, 0, samples(timing.pump_ns)),
        Window(Marker.OPTICAL_PULSE, optical, optical + samples(timing.optical_ns)),
        Window(Marker.DETECTION_GATE, gate, gate + samples(timing.gate_ns)),
    )
    pulse_start = attempt_alpha_centre(settings) - pulse.n_samples // 2
    return _row(EntryKind.ATTEMPT, _length_for(windows), pulse, pulse_start, windows, word=_ENT)


def _check_duration_ns(what: str, duration_ns: float) -> None:
    longest_ns = MAX_ENTRY_SAMPLES / SAMPLE_RATE_HZ * 1e9
    if not 0 <= duration_ns <= longest_ns:
        raise TableError(
            f"{what} = {duration_ns} ns; an entry of the waveform table can be 0..{longest_ns:.0f} "
            "ns long"
        )


def _checked_column(name: str, values: ArrayLike, limits: Limits) -> NDArray[Any]:
    """A read-only copy in the column's own type, its values checked before the conversion."""
    column = np.array(values)
    shape = (ENTRIES, *limits.row_shape)
    if column.shape != shape:
        raise TableError(f"column {name} has shape {column.shape}; the table needs {shape}")
    if column.dtype.kind not in "iufb" or (
        column.dtype.kind == "f" and np.dtype(limits.dtype).kind != "f"
    ):
        raise TableError(f"column {name} holds {column.dtype}; give it {np.dtype(limits.dtype)}")
    outside = ~((column >= limits.minimum) & (column <= limits.maximum))
    if np.any(outside):
        place = np.argwhere(outside)[0]
        raise TableError(
            f"waveform table entry {int(place[0])}: {name} is {column[tuple(place)]} and must lie "
            f"in {limits.minimum:g}..{limits.maximum:g}"
        )
    column = column.astype(limits.dtype)
    column.setflags(write=False)
    return column
