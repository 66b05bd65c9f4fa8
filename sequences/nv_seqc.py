"""The sequencer program of an NV node, and the DIO words that command it.

The program itself is ``nv_qdevice.seqc``, beside this module. Here it gets its constants
and its wave indices, and together with the waveform table becomes an `AwgProgram`.

A DIO word has 12 lines, the same for every AWG of a node:

======  =========  ===========================================================================
line    name       meaning
======  =========  ===========================================================================
0..7    entry      of the waveform table
8       keep       decouple after this entry, until the next word (rotations)
9       attempt    repeat this entry until the herald line is high, then decouple, or until
                   the next word
10      herald     a line of its own, not part of a command: this attempt was heralded
11      toggle     changes with every word
======  =========  ===========================================================================

The rules of the exchange:

* Lines 0 to 9 are set first; the toggle line changes when they are stable. It is the DIO
  strobe (both edges), so an idle program starts at once and at a fixed delay.
* The acknowledge output copies the toggle line when the entry has been queued. The next
  word may come once both are equal and, after a word with neither keep nor attempt,
  `TURNAROUND_NS` later, when the program waits for an edge again.
* Under decoupling the program looks once in a block, so a word waits up to a block, and as
  long again as the player's queue is deep. `Marker.PLAYED` shows when it is really played.
* Attempts follow each other at `attempt_period_ns`. Once in each, `decision_ns` after its
  start, the program looks at the lines: if the herald line is high, the attempts end and the
  spin is decoupled; else, if there is a new word, that is executed at once; else the next
  attempt follows.
* So a word that is to stop the attempts may find them ended by a herald. Then it is
  acknowledged but not executed: it counts as the word before the next. Who sends it knows
  from the herald line, or by a readout, whose `Marker.PLAYED` appears only if it was executed.
* The herald line must be low again before the next attempt is decided.

The program is as sample-exact as the arithmetic in `sequences.decoupling`, provided that
the sequencer is never slower than what it plays. Delays from line to sequencer and from
sequencer to output are unknown and not assumed anywhere, except that the second is less
than `decision_margin_ns`. Every attempt starts with an empty queue, so the period is
constant whatever they are, and the same in nodes with the same program; only its value, by
some nanoseconds, takes the published play latency for granted.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final, NamedTuple

from sequences.errors import ProgramError
from sequences.program import (
    CYCLE_SAMPLES,
    GRANULE_SAMPLES,
    MAX_ZERO_SAMPLES,
    MIN_PLAY_SAMPLES,
    SAMPLE_RATE_HZ,
    AwgProgram,
    padded,
    samples,
)
from sequences.waveform_table import (
    ENTRIES,
    FIRST_ATTEMPT,
    FIRST_X_COPY,
    FIRST_Y_COPY,
    EntryKind,
    WaveformTable,
    attempt_alpha_centre,
    attempt_optical_start,
    rotation_samples,
)

ENTRY_MASK: Final = 0xFF
KEEP: Final = 1 << 8
ATTEMPT: Final = 1 << 9
HERALD: Final = 1 << 10
TOGGLE_LINE: Final = 11
TOGGLE: Final = 1 << TOGGLE_LINE

ACKNOWLEDGE: Final = 0b0001
"""AWG trigger output 1 of the core."""

TURNAROUND_NS: Final = 200.0
"""From the acknowledge to the next edge an idle program can see, at least: 60 cycles."""

REPEAT_CYCLES: Final = 3 + 3
"""From the end of an attempt's silence to the next attempt: three instructions from
`waitWave` to `executeTableEntry` in the compiled program, and three cycles from there to the
player (vendor's LabOne Q compiler)."""


@dataclass(frozen=True)
class HeraldTiming:
    """When an attempt is decided, and when the next one follows.

    Attributes:
        optical_to_decision_ns: from the optical pulse to the look at the herald line: the way
            of the photon to the heralding station, its detection, and the way of the herald.
            Assumed.
        decision_margin_ns: silence queued beyond the look. More than the time from a command
            of the sequencer to the output, so that the player never runs dry. Assumed.
        attempt_period_ns: from one attempt to the next, to the nearest granule; 5.5 us
            (Delle Donne et al.).

    Raises:
        ProgramError: one of them is longer than the longest silence.
    """

    optical_to_decision_ns: float = 1500.0
    decision_margin_ns: float = 500.0
    attempt_period_ns: float = 5500.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= MAX_ZERO_SAMPLES / SAMPLE_RATE_HZ * 1e9:
                raise ProgramError(f"HeraldTiming.{name} = {value} ns cannot be played")


def dio_word(table: WaveformTable, entry: int, toggle: int) -> int:
    """The DIO word that plays an entry.

    Args:
        table: the table loaded.
        entry: its number. A rotation is followed by decoupling, an attempt by the next one
            until a herald or the next word, anything else by silence.
        toggle: level of the toggle line, the opposite of the word before. The first is 1.

    Raises:
        ProgramError: the entry is no instruction's, or the level is not 0 or 1.
    """
    if toggle not in {0, 1}:
        raise ProgramError(f"the toggle line is 0 or 1, not {toggle}")
    if not 0 <= entry < ENTRIES:
        raise ProgramError(f"entry {entry} is outside 0..{ENTRIES - 1}")
    kind = EntryKind(int(table.kind[entry]))
    if kind in {EntryKind.RESERVED, EntryKind.DECOUPLING}:
        raise ProgramError(f"entry {entry} is {kind.name.lower()}; no instruction plays it")
    after = {EntryKind.ROTATION: KEEP, EntryKind.ATTEMPT: ATTEMPT}.get(kind, 0)
    return entry | after | toggle << TOGGLE_LINE


def nv_program(table: WaveformTable, herald: HeraldTiming | None = None) -> AwgProgram:
    """Everything to load into the AWG core that drives an NV centre.

    Args:
        table: the waveform table.
        herald: when attempts are decided and repeated; the defaults if left out.

    Raises:
        DecouplingError: the pulse spacing leaves no room for an entry or a decision.
        ProgramError: the attempts are to repeat before one is decided.
    """
    constants = program_constants(table, herald or HeraldTiming())
    text = files("sequences").joinpath("nv_qdevice.seqc").read_text(encoding="utf-8")
    source = "\n".join(
        [
            *(f"const {name} = {value};" for name, value in constants.items()),
            *(_assignment(table, entry) for entry in range(ENTRIES)),
            text,
        ]
    )
    markers = {entry: table.marker_words(entry) for entry in range(ENTRIES)}
    return AwgProgram(
        source=source,
        waveforms=tuple(table.waveform(entry) for entry in range(ENTRIES)),
        command_table=table.command_table(),
        markers={entry: words for entry, words in markers.items() if words is not None},
    )


def program_constants(table: WaveformTable, herald: HeraldTiming) -> dict[str, int]:
    """The constants of the sequencer program, by their names in SeqC.

    Raises:
        DecouplingError: the pulse spacing leaves no room for an entry or a decision.
        ProgramError: the attempts are to repeat before one is decided.
    """
    settings = table.settings
    plan = settings.plan
    length = rotation_samples(settings)
    centre = length // 2
    after_rotation = plan.lead_in(length, centre)
    before_entry = plan.lead_out(centre)
    # Without alphas there is no entry that asks for a decision, and any values compile.
    decision, silence, heralded = 0, _Silence(MIN_PLAY_SAMPLES, MIN_PLAY_SAMPLES), after_rotation
    if settings.alphas:
        decision = _decision_samples(table, herald)
        silence = _attempt_silence(table, herald)
        heralded = plan.lead_in(
            int(table.length_samples[FIRST_ATTEMPT]) + silence.until_decided,
            attempt_alpha_centre(settings),
        )
    return {
        "ENTRY": ENTRY_MASK,
        "KEEP": KEEP,
        "ATTEMPT": ATTEMPT,
        "HERALD": HERALD,
        "TOGGLE": TOGGLE,
        "ACKNOWLEDGE": ACKNOWLEDGE,
        "X": FIRST_X_COPY,
        "Y": FIRST_Y_COPY,
        "GAP_ZERO": plan.gap.zero_samples,
        "GAP_SHIFT": plan.gap.shift_increment,
        "ENTRY_ZERO": before_entry.zero_samples,
        "ENTRY_SHIFT": before_entry.shift_increment,
        "ROTATION_ZERO": after_rotation.zero_samples,
        "ROTATION_SHIFT": after_rotation.shift,
        "DECISION_ZERO": silence.until_decided,
        "DECISION_CYCLES": decision // CYCLE_SAMPLES,
        "REST_ZERO": silence.afterwards,
        "HERALDED_ZERO": heralded.zero_samples,
        "HERALDED_SHIFT": heralded.shift,
    }


def decision_ns(table: WaveformTable, herald: HeraldTiming) -> float:
    """From the command that starts an attempt to the look at the herald line."""
    return _decision_samples(table, herald) / SAMPLE_RATE_HZ * 1e9


def attempt_period_ns(table: WaveformTable, herald: HeraldTiming) -> float:
    """From the start of an attempt to the start of the next, as they are really played.

    The granule nearest to the period asked for, on a core with the published play latency.

    Raises:
        ProgramError: the period is too short, or the table has no attempts.
    """
    if not table.settings.alphas:
        raise ProgramError("the waveform table has no attempts; give TableSettings.alphas")
    silence = _attempt_silence(table, herald)
    attempt = int(table.length_samples[FIRST_ATTEMPT])
    period = attempt + sum(silence) + REPEAT_CYCLES * CYCLE_SAMPLES
    return period / SAMPLE_RATE_HZ * 1e9


class _Silence(NamedTuple):
    """What is played after an attempt: always, and if another one follows, in samples."""

    until_decided: int
    afterwards: int


def _attempt_silence(table: WaveformTable, herald: HeraldTiming) -> _Silence:
    attempt = int(table.length_samples[FIRST_ATTEMPT])
    decided = _decision_samples(table, herald) + samples(herald.decision_margin_ns)
    until_decided = padded(decided - attempt)
    before_rest = attempt + until_decided + REPEAT_CYCLES * CYCLE_SAMPLES
    rest = samples(herald.attempt_period_ns) - before_rest
    granules = round(rest / GRANULE_SAMPLES)
    if granules * GRANULE_SAMPLES < MIN_PLAY_SAMPLES:
        shortest_ns = (before_rest + MIN_PLAY_SAMPLES) / SAMPLE_RATE_HZ * 1e9
        raise ProgramError(
            f"HeraldTiming.attempt_period_ns = {herald.attempt_period_ns} ns, but an attempt and "
            f"its decision take {shortest_ns:.0f} ns; use a longer period, or decide earlier"
        )
    return _Silence(until_decided, granules * GRANULE_SAMPLES)


def _decision_samples(table: WaveformTable, herald: HeraldTiming) -> int:
    return attempt_optical_start(table.settings) + samples(herald.optical_to_decision_ns)


def _assignment(table: WaveformTable, entry: int) -> str:
    # Both marker bits of both channels, or none: markers cost no wave memory.
    markers = ", true, true" if table.has_markers(entry) else ""
    placeholder = f"placeholder({table.length_samples[entry]}{markers})"
    return f"assignWaveIndex(1, {placeholder}, 2, {placeholder}, {entry});"
