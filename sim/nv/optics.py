"""What light does to a simulated NV centre: a jump process, drawn exactly.

The lasers that shine make a `Light`, and the centre is in one of four `NVState`. For every
pair of the two, `JUMPS` says what can happen and what follows; the rates are constant as long
as the light is, so the time to the next jump is exponential (Gillespie's method).

Jumps are drawn ahead as far as the next pulse of the detector, no further and never less, and
a change of the light discards what was drawn and has not happened: exact, because exponential
times have no memory. So asking for the next pulse changes nothing.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from sim.adwin.hardware import DAC_CODES_PER_VOLT, DAC_ZERO_CODE
from sim.nv.physics import US_PER_S, NVPhysics

MAX_KNOWN: Final = 1_000
"""Bound on the settings of the lasers for which rates are remembered."""

_NS_PER_S: Final = 1e9


class Light(IntEnum):
    """What the lasers that shine are together."""

    OFF = 0
    READOUT = 1
    PUMP = 2
    CHECK = 3
    REPUMP = 4


class NVState(IntEnum):
    """Charge of the centre, and of a good one the spin as far as light knows it."""

    GOOD = 0
    BRIGHT = 1
    DARK = 2
    IONISED = 3


class Jump(IntEnum):
    """What can happen."""

    PULSE = 0
    FLIP = 1
    IONISE = 2
    RECOVER = 3


AFTER: Final[Mapping[Jump, NVState]] = {
    Jump.FLIP: NVState.DARK,
    Jump.IONISE: NVState.IONISED,
    Jump.RECOVER: NVState.GOOD,
}
"""The state after a jump; a pulse of the detector leaves it."""

JUMPS: Final[Mapping[tuple[Light, NVState], tuple[Jump, ...]]] = {
    (Light.READOUT, NVState.BRIGHT): (Jump.PULSE, Jump.FLIP, Jump.IONISE),
    (Light.READOUT, NVState.DARK): (Jump.PULSE, Jump.IONISE),
    (Light.REPUMP, NVState.IONISED): (Jump.PULSE, Jump.RECOVER),
}
"""What can happen under a light in a state; where nothing is said, only pulses of the detector."""

LIGHT_OF: Final[Mapping[tuple[bool, bool, bool], Light]] = {
    (repump, e, a): Light.REPUMP if repump else Light(e * Light.READOUT + a * Light.PUMP)
    for repump in (False, True)
    for e in (False, True)
    for a in (False, True)
}
"""Light by which lasers shine: repump, E, A. The repump laser overrules the others (assumed)."""


@dataclass(frozen=True)
class OpticalWiring:
    """How the lasers and the detector are connected to an ADwin, and the nominal voltages.

    Attributes:
        dac_module: module of the analogue outputs that modulate the lasers.
        repump_channel: its channel for the repump laser.
        e_channel: for the E laser, which reads the spin out.
        a_channel: for the A laser, which pumps the spin.
        counter_module: module of the counter.
        counter: the counter that the detector feeds.
        e_readout_volts: at which the rates of a readout hold. All voltages are assumed.
        e_check_volts: of E in the charge check.
        a_check_volts: of A in the charge check.
        a_pump_volts: of A when it shines alone.
        repump_volts: of the repump laser.

    Raises:
        ValueError: a nominal voltage is not positive, or two lasers share a channel.
    """

    dac_module: int = 1
    repump_channel: int = 1
    e_channel: int = 2
    a_channel: int = 3
    counter_module: int = 1
    counter: int = 1
    e_readout_volts: float = 1.0
    e_check_volts: float = 1.0
    a_check_volts: float = 1.0
    a_pump_volts: float = 1.0
    repump_volts: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_volts") and not value > 0:
                raise ValueError(f"OpticalWiring.{name} is {value}; a laser needs a voltage > 0")
        channels = (self.repump_channel, self.e_channel, self.a_channel)
        if len(set(channels)) < len(channels):
            raise ValueError(f"two lasers share an analogue output: channels {channels}")


class Rates:
    """What can happen in one state, each jump with its rate in hertz.

    Attributes:
        jumps: what can happen.
        total_hz: sum of the rates.
        likeliest: the last resort, for a sum that rounds.
    """

    __slots__ = ("jumps", "likeliest", "total_hz")

    def __init__(self, jumps: tuple[tuple[Jump, float], ...]) -> None:
        self.jumps = jumps
        self.total_hz = sum(rate_hz for _, rate_hz in jumps)
        self.likeliest = max(jumps, key=lambda each: each[1])[0]


class Lasers:
    """The three lasers of a centre: codes of analogue outputs in, light and rates out.

    Attributes:
        light: what shines.
    """

    def __init__(self, physics: NVPhysics, wiring: OpticalWiring) -> None:
        self.light = Light.OFF
        self._physics = physics
        self._wiring = wiring
        self._channels = (wiring.repump_channel, wiring.e_channel, wiring.a_channel)
        self._volts = [0.0, 0.0, 0.0]
        self._known: dict[tuple[float, ...], dict[NVState, Rates]] = {}
        self._rates = self._known[0.0, 0.0, 0.0] = {}

    def set_code(self, module: int, channel: int, code: int) -> bool:
        """Take the code of an analogue output; returns whether that changed a laser.

        Light is proportional to the voltage, and there is none below 0 V.
        """
        if module != self._wiring.dac_module or channel not in self._channels:
            return False
        laser = self._channels.index(channel)
        volts = max(0.0, (code - DAC_ZERO_CODE) / DAC_CODES_PER_VOLT)
        if volts == self._volts[laser]:
            return False
        self._volts[laser] = volts
        repump, e, a = self._volts
        self.light = LIGHT_OF[repump > 0, e > 0, a > 0]
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._rates = self._known.setdefault((repump, e, a), {})
        return True

    @property
    def power(self) -> float:
        """Factor of the rates under this light, 1 at the nominal voltages."""
        relative, wiring = self._physics.relative_power, self._wiring
        repump, e, a = self._volts
        match self.light:
            case Light.REPUMP:
                return relative(repump, wiring.repump_volts)
            case Light.CHECK:
                return relative(e, wiring.e_check_volts) * relative(a, wiring.a_check_volts)
            case Light.READOUT:
                return relative(e, wiring.e_readout_volts)
            case Light.PUMP:
                return relative(a, wiring.a_pump_volts)
        return 0.0

    def rates(self, state: NVState) -> Rates:
        """What can happen to a centre in a state, and how often; computed once for a light."""
        rates = self._rates.get(state)
        if rates is None:
            physics, light, power = self._physics, self.light, self.power
            jumps = JUMPS.get((light, state), (Jump.PULSE,))
            rates = self._rates[state] = Rates(
                tuple((jump, _rate_hz(physics, jump, light, state, power)) for jump in jumps)
            )
        return rates


def _rate_hz(physics: NVPhysics, jump: Jump, light: Light, state: NVState, power: float) -> float:
    match jump:
        case Jump.FLIP:
            return power * physics.bright_rate_hz * physics.flips_per_photon
        case Jump.IONISE:
            return power * physics.ionisation_rate_hz
        case Jump.RECOVER:
            return power / physics.repump_time_constant_us * US_PER_S
    photons = {
        (Light.READOUT, NVState.BRIGHT): physics.bright_rate_hz,
        (Light.CHECK, NVState.GOOD): physics.cr_rate_hz,
    }
    return power * photons.get((light, state), 0.0) + physics.dark_rate_hz


class Happening(NamedTuple):
    """A jump and its time; it belongs to the nanosecond it falls in."""

    time_ns: float
    jump: Jump


class JumpProcess:
    """The jumps of one centre under its lasers.

    Args:
        lasers: of the centre.
        rng: draws times and jumps.

    Attributes:
        state: up to where the jumps were taken.
    """

    def __init__(self, lasers: Lasers, rng: random.Random) -> None:
        self.state = NVState.GOOD
        self._lasers = lasers
        self._rng = rng
        self._drawn: deque[Happening] = deque()
        self._draw(0)

    def restart(self, now_ns: int, state: NVState) -> None:
        """Go on in a state from a time, under the light there is now."""
        self.state = state
        self._draw(now_ns)

    def take(self, before_ns: int) -> Happening | None:
        """The next jump if it is before a time; the state is then that after it."""
        if not self._drawn or self._drawn[0].time_ns >= before_ns:
            return None
        happened = self._drawn.popleft()
        if happened.jump is not Jump.PULSE:
            self.state = AFTER[happened.jump]
        if not self._drawn:
            self._draw(happened.time_ns)
        return happened

    def next_pulse_ns(self) -> float | None:
        """When the next pulse comes if the light stays as it is; None for never."""
        if not self._drawn or self._drawn[-1].jump is not Jump.PULSE:
            return None
        return self._drawn[-1].time_ns

    def _draw(self, from_ns: float) -> None:
        """Draw jumps up to the first pulse; no other jump can happen twice before it."""
        self._drawn.clear()
        time_ns, state, jump = from_ns, self.state, Jump.FLIP
        while jump is not Jump.PULSE:
            rates = self._lasers.rates(state)
            if rates.total_hz == 0:
                # Nothing ever happens again.
                break
            time_ns += self._rng.expovariate(rates.total_hz) * _NS_PER_S
            jump = self._chosen(rates) if len(rates.jumps) > 1 else Jump.PULSE
            self._drawn.append(Happening(time_ns, jump))
            if jump is not Jump.PULSE:
                state = AFTER[jump]

    def _chosen(self, rates: Rates) -> Jump:
        left = self._rng.random() * rates.total_hz
        for jump, rate_hz in rates.jumps:
            left -= rate_hz
            if left < 0:
                return jump
        return rates.likeliest
