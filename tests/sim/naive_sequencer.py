"""The pulse sequencer as a plain loop over cycles: slow, and written without the other's code."""

from __future__ import annotations

from dataclasses import dataclass, field

SLOTS = 5
BRANCHES = (0x3, 0x4, 0x5, 0x6, 0xA)


class Fault(Exception):
    """The program cannot go on."""


@dataclass
class NaiveSequencer:
    """Attributes: `changes` of the outputs as (time_ns, before, after)."""

    words: tuple[int, ...]
    cycle: int = 0
    address: int = 0
    ttl: int = 0
    waiting: int = 0
    halted: bool = False
    slots: int = 0
    only_nops: bool = False
    target: int | None = None
    registers: list[int] = field(default_factory=lambda: [0] * 16)
    stack: list[int] = field(default_factory=list)
    changes: list[tuple[int, int, int]] = field(default_factory=list)

    def run(self, limit: int, inputs: int) -> None:
        while self.cycle < limit and not self.halted:
            self._tick(inputs)
            self.cycle += 1

    def _tick(self, inputs: int) -> None:
        if self.waiting:
            self.waiting -= 1
            return
        if self.address >= len(self.words):
            raise Fault("end")
        word = self.words[self.address]
        code, low = word >> 28, word & 0x3FFFF
        register = word >> 23 & 15
        if self.slots and (code not in (0x0, 0xB, 0xC) or (self.only_nops and code)):
            raise Fault("slot")
        was_in_slots = self.slots > 0
        if code == 0xC:
            group, value = word >> 16 & 3, word & 0xFFFF
            after = self.ttl & ~(0xFFFF << 16 * group) | value << 16 * group
            if after != self.ttl:
                self.changes.append((self.cycle * 10, self.ttl, after))
            self.ttl = after
        elif code == 0xB:
            self.registers[register] = word & 0xFF
        elif code == 0x8:
            self.halted = True
            return
        elif code == 0x9:
            self.waiting, self.slots, self.only_nops = word & 0x3FFF, SLOTS, True
        elif code in BRANCHES:
            taken, target = True, low
            if code == 0x3:
                high = inputs & (word >> 19 & 0x1FF) != 0
                taken = high != bool(word >> 18 & 1)
            elif code == 0x5:
                if len(self.stack) >= 8:
                    raise Fault("calls")
                self.stack.append(self.address + 1 + SLOTS)
            elif code == 0x6:
                if not self.stack:
                    raise Fault("ret")
                target = self.stack.pop()
            elif code == 0xA:
                if self.registers[register] == 0:
                    raise Fault("bdec")
                self.registers[register] -= 1
                taken = self.registers[register] > 0
            self.slots, self.only_nops = SLOTS, False
            self.target = target if taken else None
        elif code != 0:
            raise Fault("opcode")
        self.address += 1
        if was_in_slots:
            self.slots -= 1
            if not self.slots and self.target is not None:
                self.address, self.target = self.target, None
