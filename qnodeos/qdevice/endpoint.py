"""The two ends of the wire between QNPU and QDevice, without the wire.

Theory of operation
-------------------
Every tick one frame travels each way (`qnodeos.qdevice.frames`). The exchange is full
duplex: the frame a device returns at tick t was prepared before it reads the frame of
tick t. A frame may be damaged, lost (damaged beyond recognition) or replaced by a copy of
the one before it in the same direction; frames are never reordered.

*Alternating bit.* The master has at most one instruction outstanding. It repeats the
instruction's frame every tick, with a sequence bit that toggles with every new instruction,
until it sees an outcome with that bit. The slave accepts an instruction only while it
executes none and only if the sequence bit differs from the one it accepted last (and the
acknowledge bit, the sequence bit of the last outcome the master believed, equals it), so a
repetition is never executed twice. The slave repeats its last outcome, with the sequence
bit of the instruction it answers, in every frame; the master believes an outcome only while
that instruction is outstanding, so a repetition is never delivered twice. A NOP is never an
instruction: an idle master sends NOPs with both bits equal.

*Sessions.* One bit says nothing to an end that has forgotten the previous one. So whoever
starts, starts a session, and the bits count from the start of the session:

    master                                    slave
    SYNCHRONISING                             BOOT: executes nothing, says DETAIL_BOOT
      sends session_word(n) every tick   -->  executes nothing: enters n, both bits 0,
                                              says DETAIL_SESSION with n
      sees DETAIL_SESSION with n: IN SESSION  executing: finishes first, drops the outcome
    IN SESSION
      sees DETAIL_BOOT: the device has restarted; an outstanding instruction is answered
      HARDWARE_FAILURE; SYNCHRONISING with session n + 1

A restarted master thus never takes an old outcome for a new one: the slave forgets its
outcome when it enters the session, and an instruction that was running is finished (nothing
physical can be taken back) and its outcome dropped. A restarted slave never executes an
instruction its predecessor may have executed: it executes nothing until a master that has
seen DETAIL_BOOT, and has given that instruction up, has opened the next session.

*Bounds.* A master that has waited for ``silence_limit`` frames in a row without a sign of
life (damaged frames, or frames of a device that is not busy and does not answer) gives the
outstanding instruction up as HARDWARE_FAILURE and opens a new session. A busy device may
take as long as it likes: how long is right is the kernel's to know. After HARDWARE_FAILURE
from this module the instruction may or may not have been executed.

Invariants, with at most finitely many bad frames (fewer than ``silence_limit`` in a row):
an instruction is executed exactly once; its outcome is delivered exactly once; a damaged
frame is never believed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from qnodeos.errors import FrameError
from qnodeos.qdevice.frames import (
    DETAIL_BOOT,
    DETAIL_NONE,
    DETAIL_SESSION,
    HERALD_OF_DETAIL,
    MAX_SESSION,
    TICK_MASK,
    TICK_PATTERN,
    TICK_SHIFT,
    decode_command,
    decode_response,
    encode_command,
    encode_response,
    session_of,
    session_word,
)
from qnodeos.qdevice.instructions import NOP, Opcode, PhysicalInstruction, decode_word
from qnodeos.qdevice.outcomes import BellState, Outcome

SILENCE_LIMIT_FRAMES: Final = 1000
"""Frames without a sign of life before an instruction is given up: 10 ms at 10 us (assumed)."""

_NO_FRAME: Final = -1

# Few different frames travel (the tick is taken out first), so coding is mostly remembering.
_decode_word: Final = lru_cache(maxsize=1024)(decode_word)
_encode_command: Final = lru_cache(maxsize=1024)(encode_command)
_decode_command: Final = lru_cache(maxsize=1024)(decode_command)
_encode_response: Final = lru_cache(maxsize=1024)(encode_response)
_decode_response: Final = lru_cache(maxsize=1024)(decode_response)


class Response(NamedTuple):
    """What the device answered to one instruction."""

    outcome: Outcome
    herald: BellState | None


_RESPONSES: Final[dict[tuple[int, int], Response]] = {
    (outcome, detail): Response(outcome, herald)
    for outcome in Outcome
    for detail, herald in enumerate(HERALD_OF_DETAIL)
}
_FAILED: Final = Response(Outcome.HARDWARE_FAILURE, None)


class FrameMaster:
    """The QNPU's end of the wire.

    Args:
        session: number of the first session, 0..15. A restarted service should pass another
            number than its predecessor did; frames of the two cannot be confused then.
        silence_limit: frames in a row without a sign of life after which the outstanding
            instruction is given up.

    Attributes:
        corrupted_frames: damaged frames received so far.
        device_restarts: how often the device has reported that it restarted.
        device_tick_low: tick counter in the last valid frame, low bits (see `unwrap_tick`).
    """

    __slots__ = (
        "_frame",
        "_in_session",
        "_outstanding",
        "_quiet",
        "_sequence",
        "_session",
        "_silence",
        "_silence_limit",
        "_unsent",
        "_word",
        "corrupted_frames",
        "device_restarts",
        "device_tick_low",
    )

    _in_session: bool
    _sequence: int
    _quiet: int

    def __init__(self, session: int = 0, *, silence_limit: int = SILENCE_LIMIT_FRAMES) -> None:
        if silence_limit < 2:
            raise ValueError(
                f"silence_limit is {silence_limit}; an answer takes two frames at least"
            )
        self.corrupted_frames = 0
        self.device_restarts = 0
        self.device_tick_low = 0
        self._silence_limit = silence_limit
        self._outstanding = False
        self._open_session(session)

    @property
    def idle(self) -> bool:
        """Whether nothing is outstanding, so that `submit` may be called."""
        return not self._outstanding

    @property
    def has_news(self) -> bool:
        """Whether the next frame says something new: an instruction or a session request."""
        return self._unsent or not self._in_session

    def submit(self, instruction: PhysicalInstruction) -> None:
        """Hand over the next instruction.

        Raises:
            FrameError: one is outstanding, or it is a NOP, which no device ever answers.
        """
        if self._outstanding:
            raise FrameError(
                f"{instruction.opcode.name} submitted while another instruction is "
                "outstanding; wait for its response"
            )
        if instruction.opcode is Opcode.NOP:
            raise FrameError("a NOP is never answered; submit nothing instead")
        self._word = instruction.word
        self._outstanding = True
        self._unsent = True
        self._silence = 0
        self._prepare()

    def outgoing(self) -> int:
        """The frame to send at this tick."""
        if self._in_session:
            self._unsent = False
        return self._frame

    def incoming(self, frame: int) -> Response | None:
        """Take the frame received at this tick; the response if it brought one."""
        tick_low = frame >> TICK_SHIFT & TICK_MASK
        at_tick_zero = frame ^ TICK_PATTERN[tick_low]
        if at_tick_zero == self._quiet:
            self.device_tick_low = tick_low
            return None
        response = _decode_response(at_tick_zero)
        if response is None:
            self.corrupted_frames += 1
            return self._endure_silence()
        self.device_tick_low = tick_low
        outcome, detail, _, busy, sequence, _ = response
        if not self._in_session:
            if detail == DETAIL_SESSION and outcome == self._session:
                self._in_session = True
                self._silence = 0
                self._prepare()
                return None
            return None if busy else self._endure_silence()
        if detail == DETAIL_BOOT:
            self.device_restarts += 1
            return self._give_up()
        if self._outstanding:
            if sequence != self._sequence and detail != DETAIL_SESSION:
                self._outstanding = False
                self._sequence = sequence
                self._prepare()
                return _RESPONSES[outcome, detail]
            if not busy:
                return self._endure_silence()
        self._silence = 0
        self._quiet = at_tick_zero
        return None

    def repeated(self, frames: int) -> Response | None:
        """Count the frame taken last this many times more; the response if that gives up.

        For a wire on which frames that say nothing new are not carried: they count as silence
        all the same.
        """
        return self.silent(frames) if self._silence else None

    def silent(self, frames: int) -> Response | None:
        """Count ticks at which no frame came at all; the response if that gives up."""
        if frames <= 0:
            return None
        self._silence += frames - 1
        return self._endure_silence()

    def give_up(self) -> Response | None:
        """Open the next session; HARDWARE_FAILURE if an instruction was outstanding.

        For whoever knows more than frames tell: that the wire is gone, or that the device
        has been busy for longer than the instruction can take.
        """
        return self._give_up()

    def _endure_silence(self) -> Response | None:
        self._quiet = _NO_FRAME
        self._silence += 1
        if self._outstanding and self._silence >= self._silence_limit:
            return self._give_up()
        return None

    def _give_up(self) -> Response | None:
        failed = _FAILED if self._outstanding else None
        self._outstanding = False
        self._open_session(self._session + 1 & MAX_SESSION)
        return failed

    def _open_session(self, session: int) -> None:
        self._session = session
        self._in_session = False
        self._sequence = 0
        self._silence = 0
        self._word = NOP.word
        self._unsent = False
        self._prepare()

    def _prepare(self) -> None:
        """Compute the frame to repeat from now on."""
        self._quiet = _NO_FRAME
        if not self._in_session:
            self._frame = _encode_command(session_word(self._session), 0, 0)
        elif self._outstanding:
            self._frame = _encode_command(self._word, self._sequence ^ 1, self._sequence)
        else:
            self._frame = _encode_command(NOP.word, self._sequence, self._sequence)


class FrameSlave:
    """The QDevice's end of the wire. A new one says that the device has just started.

    Attributes:
        corrupted_frames: damaged frames received so far.
    """

    __slots__ = (
        "_accepted",
        "_answered",
        "_at_tick_zero",
        "_detail",
        "_in_session",
        "_outcome",
        "_seen",
        "_unsent",
        "corrupted_frames",
    )

    _seen: int
    _at_tick_zero: int

    def __init__(self) -> None:
        self.corrupted_frames = 0
        self._in_session = False
        self._accepted = 0
        self._answered = 0
        self._outcome = 0
        self._detail = DETAIL_BOOT
        self._prepare()

    @property
    def busy(self) -> bool:
        """Whether an instruction has been accepted and not yet completed."""
        return self._accepted != self._answered

    @property
    def has_news(self) -> bool:
        """Whether the next frame says something (besides the tick) that none has said yet."""
        return self._unsent

    def outgoing(self, tick: int) -> int:
        """The frame to return at this tick; call it before `incoming`."""
        self._unsent = False
        return self._at_tick_zero ^ TICK_PATTERN[tick & TICK_MASK]

    def incoming(self, frame: int) -> PhysicalInstruction | None:
        """Take the frame received at this tick; the instruction to execute if it is new.

        An instruction whose opcode is unknown is answered here, with UNSUPPORTED_REQUEST.
        """
        if frame == self._seen:
            return None
        command = _decode_command(frame)
        if command is None:
            self.corrupted_frames += 1
            return None
        instruction = None if self.busy else self._accept(*command)
        # Until `complete` changes the state, the same frame again would do nothing.
        self._seen = frame
        return instruction

    def complete(self, outcome: Outcome, herald: BellState | None = None) -> None:
        """Answer the accepted instruction.

        Args:
            outcome: its result.
            herald: the Bell state heralded, for an ENM whose outcome is the measured bit.

        Raises:
            FrameError: no instruction is being executed.
        """
        if not self.busy:
            raise FrameError(f"outcome {outcome.name} without an instruction to answer")
        self._answered = self._accepted
        self._outcome = outcome
        self._detail = DETAIL_NONE if herald is None else 1 + herald
        self._prepare()

    def _accept(self, word: int, sequence: int, acknowledge: int) -> PhysicalInstruction | None:
        session = session_of(word)
        if session is not None:
            self._enter(session)
            return None
        accepted = self._accepted
        is_instruction = word & 0xF != Opcode.NOP and self._in_session
        if not is_instruction or sequence == accepted or acknowledge != accepted:
            return None
        self._accepted = sequence
        self._prepare()
        instruction = _decode_word(word)
        if instruction is None:
            self.complete(Outcome.UNSUPPORTED_REQUEST)
        return instruction

    def _enter(self, session: int) -> None:
        """Enter a session; entering the one just entered changes nothing."""
        self._in_session = True
        self._accepted = 0
        self._answered = 0
        self._outcome = session
        self._detail = DETAIL_SESSION
        self._prepare()

    def _prepare(self) -> None:
        """Compute the frame to repeat from now on, as it would be at tick 0."""
        self._unsent = True
        self._seen = _NO_FRAME
        self._at_tick_zero = _encode_response(
            self._outcome, self._detail, 0, self.busy, self._answered, self._accepted
        )
