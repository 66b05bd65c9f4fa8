"""One AWG core: waveform memory, command table, sequencer and player."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sim.hdawg.command_table import Change, Entry, read_table
from sim.hdawg.dio import DioInput, StrobeSlope, TriggerSettings, ValidPolarity
from sim.hdawg.elf import CompiledProgram, MalformedElf, WaveSlot, read_elf
from sim.hdawg.errors import SequencerFault
from sim.hdawg.loops import LoopFinder
from sim.hdawg.player import Player
from sim.hdawg.sequencer import IllegalInstruction, Sequencer
from sim.hdawg.timeline import MAX_RECORDED, NOTHING, Levels, Waveform
from sim.hdawg.timing import HdawgTiming

FULL_SCALE: Final = 32_767.0
"""A 16-bit value of full scale, as the vendor's conversion of waveforms has it."""


class UploadRefused(ValueError):
    """A program, waveform or table that the core does not take."""


class AwgCore:
    """One core. Times in the public interface are samples at the instrument's connectors.

    In a loop that repeats exactly (see `sim.hdawg.loops`) it executes nothing: whole periods
    are only counted, and the beginning of another one is put off until somebody reads the
    timeline or an input changes. Nobody can tell the difference, but by the time it takes.

    Attributes:
        program: loaded, None before the first.
        words: 16-bit words of each waveform as uploaded, by wave index.
        trigger_edges: changes of the trigger outputs, as (sample, new word).
        dio_edges: changes of the DIO output, as (sample, new word).
        player: with the timeline.

    Args:
        timing: knobs.
        dio: the input lines, shared by all cores.
        read_setting: value of an integer node below `/awgs/n/`. Call `settle` before one of
            them changes.
        skips_loops: execute every iteration of every loop if false.
    """

    def __init__(
        self,
        timing: HdawgTiming,
        dio: DioInput,
        read_setting: Callable[[str], Any],
        skips_loops: bool = True,
    ) -> None:
        self._timing = timing
        self._dio = dio
        self._read_setting = read_setting
        self.program: CompiledProgram | None = None
        self.words: dict[int, NDArray[np.uint16]] = {}
        self.trigger_edges: list[tuple[int, int]] = []
        self.dio_edges: list[tuple[int, int]] = []
        self.player = Player(timing, self._catch_up)
        self._waveforms: dict[int, Waveform] = {}
        self._entries: dict[int, Entry] = {}
        # Entries executed since something was uploaded, joined with their waveforms.
        self._prepared: dict[int, tuple[Entry, int, int]] = {}
        self._sequencer: Sequencer | None = None
        self._is_running = False
        self._skips_loops = skips_loops
        self._loops = LoopFinder()
        self._horizon = 0
        self._trigger_word = self._dio_word = 0
        self._trigger_settings: TriggerSettings | None = None

    # --- what the data server does ----------------------------------------------------

    def load(self, elf: bytes) -> CompiledProgram:
        """Take a compiled program; its waveforms replace those in memory.

        Raises:
            UploadRefused: the file is no program, or outside the modelled subset. The core
                is left without a program.
        """
        self.unload()
        try:
            program = read_elf(elf)
            self._sequencer = Sequencer(program, self)
        except (MalformedElf, IllegalInstruction) as error:
            raise UploadRefused(str(error)) from error
        self.program = program
        for index, slot in enumerate(program.slots):
            words = np.zeros(slot.n_words, np.uint16) if slot.data is None else slot.data
            self._store(index, slot, words)
        return program

    def unload(self) -> None:
        """Stop and forget the program; the command table stays."""
        self._is_running = False
        self._loops.forget()
        self.program = self._sequencer = None
        self.words, self._waveforms, self._prepared = {}, {}, {}
        self.player.clear()

    def set_waveform(self, index: int, words: NDArray[Any]) -> None:
        """Replace a waveform.

        Args:
            index: wave index.
            words: unsigned 16-bit, values and marker word of each sample in turn.

        Raises:
            UploadRefused: the program has no such index, or its slot is of another length.
        """
        slots = () if self.program is None else self.program.slots
        if not 0 <= index < len(slots) or not slots[index].is_used:
            raise UploadRefused(f"the program assigns no waveform to index {index}")
        if np.shape(words) != (slots[index].n_words,):
            raise UploadRefused(
                f"waveform {index} has {np.size(words)} words; its slot has {slots[index].n_words}"
            )
        self.settle()
        self._store(index, slots[index], np.asarray(words).astype(np.uint16))

    def _store(self, index: int, slot: WaveSlot, words: NDArray[np.uint16]) -> None:
        columns = words.reshape(slot.n_samples, -1)
        values = np.zeros((slot.n_samples, 2))
        values[:, : slot.n_channels] = columns[:, : slot.n_channels].view(np.int16) / FULL_SCALE
        markers = columns[:, slot.n_channels].astype(np.uint8) if slot.has_markers else None
        self.words[index] = words
        self._prepared.clear()
        self._waveforms[index] = Waveform(index, values, markers)

    def set_table(self, text: str) -> None:
        """Replace or update the command table.

        Raises:
            TableRefused: it breaks the schema; the old one stays.
        """
        entries, is_update = read_table(text)
        self.settle()
        self._entries = {**self._entries, **entries} if is_update else entries
        self._prepared.clear()

    def clear_table(self) -> None:
        """Forget the command table."""
        self.settle()
        self._entries = {}
        self._prepared.clear()

    def start(self, now: int) -> bool:
        """Start the program from its beginning, with empty timelines.

        Returns:
            False if there is none.
        """
        if self._sequencer is None:
            return False
        self.player.clear()
        self._prepared.clear()
        self.trigger_edges, self.dio_edges = [], []
        self._trigger_word = self._dio_word = 0
        self._loops.forget()
        self._trigger_settings = None
        self._horizon = now
        self._sequencer.start(now)
        self._is_running = True
        return True

    def stop(self) -> None:
        """Stop the sequencer; what is queued still plays."""
        self.settle()
        self._is_running = False

    def settle(self) -> None:
        """Do what was put off, because something the program reads is going to change."""
        self._catch_up(None)
        self._loops.forget()
        self._trigger_settings = None

    # --- what the laboratory does -----------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether the sequencer executes."""
        return self._is_running

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a DIO trigger."""
        return self._is_running and self._sequencer is not None and self._sequencer.is_waiting

    @property
    def steady_period_samples(self) -> int | None:
        """Period of the loop the core is in, None while no loop is known to go on."""
        loop = self._loops.steady
        return None if loop is None or not self._is_running else loop.period_samples

    def run_until(self, sample: int) -> None:
        """Execute what is due before a sample of the sequencer's clock.

        Raises:
            SequencerFault: the program did what hardware cannot; the core has stopped.
        """
        self._horizon = sample
        if self._loops.steady is not None:
            if not self._dio_changes():
                return
            self._loops.leave()
        self._execute(may_rest=True)

    def _catch_up(self, stop: int | None) -> None:
        """Execute what was put off, as far as it can start a play before a sample."""
        if self._loops.steady is None or self._sequencer is None:
            return
        if stop is None or stop > self.player.earliest_start(self._sequencer.now):
            self._execute(may_rest=False)

    def _execute(self, may_rest: bool) -> None:
        if not self._is_running or self._sequencer is None:
            return
        try:
            self._sequencer.run_until(self._horizon, may_rest)
        except SequencerFault:
            self._is_running = False
            raise
        if self._sequencer.has_ended:
            self._is_running = False
        # The loop found on the way may have been left since.
        if self._loops.steady is not None and self._dio_changes():
            self._loops.leave()

    def _dio_changes(self) -> bool:
        """Whether the DIO word has changed since the head of the loop was visited last."""
        return self._dio.changes_within(self._loops.visited_at, self._horizon) is not None

    def forget_before(self, sample: int) -> None:
        """Drop plays and edges before a sample."""
        self.player.timeline.forget_before(sample)
        for edges in (self.trigger_edges, self.dio_edges):
            edges[:] = [edge for edge in edges if edge[0] >= sample]

    # --- what the sequencer is wired to -----------------------------------------------

    def dio_word(self, now: int) -> int:
        """The word on the DIO lines."""
        return self._dio.word_at(now)

    def dio_trigger(self, since: int, until: int) -> tuple[int, int] | None:
        """Sample and word of the first DIO trigger in [since, until)."""
        self._loops.leave()
        settings = self._trigger_settings
        if settings is None:
            settings = self._trigger_settings = TriggerSettings(
                strobe_line=self._read_setting("dio/strobe/index"),
                slope=StrobeSlope(self._read_setting("dio/strobe/slope")),
                valid_line=self._read_setting("dio/valid/index"),
                polarity=ValidPolarity(self._read_setting("dio/valid/polarity")),
            )
        return self._dio.next_trigger(since, until, settings)

    def dio_table_index(self, word: int) -> int:
        """The part of a DIO word that selects a table entry."""
        shift, mask = self._read_setting("dio/mask/shift"), self._read_setting("dio/mask/value")
        return int(word >> shift & mask)

    def user_register(self, index: int) -> int:
        """The value of a user register."""
        return int(self._read_setting(f"userregs/{index}"))

    def set_dio(self, now: int, word: int) -> None:
        """Drive the DIO output."""
        if word != self._dio_word:
            self._dio_word = word
            self._record(self.dio_edges, now, word)

    def set_triggers(self, now: int, word: int) -> None:
        """Drive the trigger outputs."""
        if word != self._trigger_word:
            self._trigger_word = word
            self._record(self.trigger_edges, now, word)

    def _record(self, edges: list[tuple[int, int]], now: int, word: int) -> None:
        if len(edges) >= MAX_RECORDED:
            raise SequencerFault(
                f"{MAX_RECORDED} edges are recorded; call forget_before() now and then"
            )
        edges.append((now + self._timing.trigger_latency_samples, word))
        self._loops.leave()

    def execute_entry(self, now: int, index: int) -> int:
        """Execute a table entry; the sample at which there was room for it."""
        prepared = self._prepared.get(index)
        if prepared is None:
            prepared = self._prepared[index] = self._prepare(index)
        entry, waveform, n_samples = prepared
        if entry.changes_levels:
            self._change_levels(index, entry)
        if not n_samples:
            return now
        return self.player.order(now, n_samples, waveform, index, entry.is_held)

    def _prepare(self, index: int) -> tuple[Entry, int, int]:
        """An entry, the number of its waveform in the timeline, and the length: 0 for none."""
        entry = self._entries.get(index)
        if entry is None:
            raise SequencerFault(f"the command table has no entry {index}")
        if entry.wave_index is None:
            return entry, NOTHING, entry.n_samples or 0
        waveform = self._waveforms.get(entry.wave_index)
        if waveform is None:
            raise SequencerFault(f"entry {index} plays waveform {entry.wave_index}: not assigned")
        n_samples = len(waveform.values) if entry.n_samples is None else entry.n_samples
        if n_samples > len(waveform.values):
            raise SequencerFault(
                f"entry {index} plays {n_samples} samples of waveform {entry.wave_index}, "
                f"which has {len(waveform.values)}"
            )
        return entry, self.player.timeline.number_of(waveform), n_samples

    def _change_levels(self, index: int, entry: Entry) -> None:
        player = self.player
        old = player.levels
        first_deg, second_deg = _changed(entry.phases, old.phases_deg)
        amplitudes = _changed(entry.amplitudes, old.amplitudes)
        new = Levels((first_deg % 360, second_deg % 360), amplitudes)
        if max(map(abs, new.amplitudes)) > 1:
            raise SequencerFault(f"entry {index} makes the amplitudes {new.amplitudes}")
        player.set_levels(new)

    def play_constant(self, now: int, n_samples: int, is_held: bool) -> int:
        """Play zeros or the last value; the sample at which there was room for it."""
        return self.player.order(now, n_samples, is_held=is_held)

    def playing_until(self) -> int:
        """When the player has nothing left, or had."""
        return self.player.free_at

    def pass_over(self, now: int, until: int, state: tuple[int, ...]) -> tuple[int, bool]:
        """Pass over whole periods of a loop, see `Surroundings`."""
        if not self._skips_loops:
            return 0, False
        player, loops = self.player, self._loops
        since, word = self._dio.unchanged_at(now)
        key = (state, word, self._trigger_word, self._dio_word, player.state(now))
        loop = loops.visit(key, now, since, player.timeline)
        if loop is None:
            return 0, False
        change = self._dio.changes_within(now, until)
        periods = ((until if change is None else change) - now) // loop.period_samples
        passed = periods * loop.period_samples
        player.timeline.repeat(now + loop.lead_samples, loop.period_samples, periods, loop.pattern)
        player.pass_over(passed)
        loops.visited_at += passed
        return passed, change is None


def _changed(
    changes: tuple[Change | None, Change | None], old: tuple[float, float]
) -> tuple[float, float]:
    first, second = changes
    return (
        old[0] if first is None else first.apply(old[0]),
        old[1] if second is None else second.apply(old[1]),
    )
