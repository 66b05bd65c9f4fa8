"""The sequencer program of an NV node, and the DIO words that command it.

The program itself is ``nv_qdevice.seqc``, beside this module. Here it gets its constants
and its wave indices, and together with the waveform table becomes an `AwgProgram`.

A DIO word has 12 lines, the same for every AWG of a node:

======  =========  ===========================================================================
line    name       meaning
======  =========  ===========================================================================
0..7    entry      of the waveform table
8       keep       decouple after this entry, until the next word (rotations)
9       attempt    afterwards look at the herald line, and decouple if it is high
10      herald     a line of its own, not part of a command: this attempt was heralded
11      toggle     changes with every word
======  =========  ===========================================================================

The rules of the exchange:

* Lines 0 to 9 are set first; the toggle line changes when they are stable. It is the DIO
  strobe (both edges), so an idle program starts at once and at a fixed delay.
* The acknowledge output copies the toggle line when the entry has been queued. The next
  word may come once both are equal and, after a word without keep, `TURNAROUND_NS` later
  (after an attempt: `attempt_busy_ns` after the toggle edge), when the program waits for an
  edge again.
* Under decoupling the program looks once in a block, so a word waits up to a block, and as
  long again as the player's queue is deep.
* The herald line is looked at once, `decision_ns` after the start of the attempt.

The program is as sample-exact as the arithmetic in `sequences.decoupling`, provided that
the sequencer is never slower than what it plays. Delays from line to sequencer and from
sequencer to output are unknown and not assumed anywhere, except that the second is less
than `decision_margin_ns`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from sequences.errors import ProgramError
from sequences.program import (
    CYCLE_SAMPLES,
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


@dataclass(frozen=True)
class HeraldTiming:
    """When an attempt is decided. Both assumed.

    Attributes:
        optical_to_decision_ns: from the optical pulse to the look at the herald line: the way
            of the photon to the heralding station, its detection, and the way of the herald.
        decision_margin_ns: silence queued beyond the look. More than the time from a command
            of the sequencer to the output, so that the player never runs dry.
    """

    optical_to_decision_ns: float = 1500.0
    decision_margin_ns: float = 500.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= MAX_ZERO_SAMPLES / SAMPLE_RATE_HZ * 1e9:
                raise ProgramError(f"HeraldTiming.{name} = {value} ns cannot be played")


def dio_word(table: WaveformTable, entry: int, toggle: int) -> int:
    """The DIO word that plays an entry.

    Args:
        table: the table loaded.
        entry: its number. A rotation is followed by decoupling, an attempt by the look at
            the herald line, anything else by silence.
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
        herald: when attempts are decided; the assumed defaults if left out.

    Raises:
        DecouplingError: the pulse spacing leaves no room for an entry or a decision.
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
    """
    settings = table.settings
    plan = settings.plan
    length = rotation_samples(settings)
    centre = length // 2
    after_rotation = plan.lead_in(length, centre)
    before_entry = plan.lead_out(centre)
    # Without alphas there is no entry that asks for a decision, and any values compile.
    decision, decision_zero, heralded = 0, MIN_PLAY_SAMPLES, after_rotation
    if settings.alphas:
        attempt_length = int(table.length_samples[FIRST_ATTEMPT])
        decision = _decision_samples(table, herald)
        decision_zero = padded(decision + samples(herald.decision_margin_ns) - attempt_length)
        heralded = plan.lead_in(attempt_length + decision_zero, attempt_alpha_centre(settings))
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
        "DECISION_ZERO": decision_zero,
        "DECISION_CYCLES": decision // CYCLE_SAMPLES,
        "HERALDED_ZERO": heralded.zero_samples,
        "HERALDED_SHIFT": heralded.shift,
    }


def decision_ns(table: WaveformTable, herald: HeraldTiming) -> float:
    """From the command that starts an attempt to the look at the herald line."""
    return _decision_samples(table, herald) / SAMPLE_RATE_HZ * 1e9


def attempt_busy_ns(table: WaveformTable, herald: HeraldTiming) -> float:
    """From the start of an attempt that fails to when the next can be started."""
    return decision_ns(table, herald) + herald.decision_margin_ns + TURNAROUND_NS


def _decision_samples(table: WaveformTable, herald: HeraldTiming) -> int:
    return attempt_optical_start(table.settings) + samples(herald.optical_to_decision_ns)


def _assignment(table: WaveformTable, entry: int) -> str:
    # Both marker bits of both channels, or none: markers cost no wave memory.
    markers = ", true, true" if table.has_markers(entry) else ""
    placeholder = f"placeholder({table.length_samples[entry]}{markers})"
    return f"assignWaveIndex(1, {placeholder}, 2, {placeholder}, {entry});"
