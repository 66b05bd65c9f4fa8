"""A simulated NV centre: its electron spin, its charge, and the light that acts on both.

`NVCentre` is the source of photons of a simulated ADwin (`sim.adwin.hardware.PhotonSource`):
the analogue outputs of the ADwin switch the lasers, and the pulses of the detector go to its
counter. The AWG acts through `pump`, for the windows of its spin-pump marker, and through
`spin.play`. Times are nanoseconds from the start of the simulation, when the AWG was at
sample 0; who drives the centre lets spin and light have what comes first, first.

================  ==========================================================================
light             what it does
================  ==========================================================================
E                 projects the spin, then photons from |0> until it flips; may ionise
A, marker         pumps the spin to |0>; its few photons are left out (assumed). What A does
                  is done when it goes off
E and A           photons whatever the spin, which is lost; none from an ionised centre
repump            brings an ionised centre back; the spin is lost
================  ==========================================================================
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Final

from sim.hdawg.timing import sample_at_ns
from sim.nv.optics import Jump, JumpProcess, Lasers, Light, NVState, OpticalWiring
from sim.nv.physics import NVPhysics
from sim.nv.spin import ElectronSpin

_NS_PER_US: Final = 1e3
_UNPOLARISED: Final = 0.5
_NO_PULSES: Final[Mapping[tuple[int, int], int]] = {}


class NVCentre:
    """One NV centre in front of its lasers and its detector.

    Args:
        physics: of the centre.
        spin: its electron spin.
        rng: decides about light; give each centre its own.
        wiring: to the ADwin.

    Attributes:
        physics: of the centre.
        spin: its electron spin.
    """

    def __init__(
        self,
        physics: NVPhysics,
        spin: ElectronSpin,
        rng: random.Random,
        wiring: OpticalWiring | None = None,
    ) -> None:
        self.physics = physics
        self.spin = spin
        self._rng = rng
        wiring = wiring or OpticalWiring()
        self._counter = (wiring.counter_module, wiring.counter)
        self._lasers = Lasers(physics, wiring)
        self._jumps = JumpProcess(self._lasers, rng)
        self._changed_at = 0

    @property
    def good(self) -> bool:
        """Whether the centre is NV-; simulation only, no device can read this directly."""
        return self._jumps.state is not NVState.IONISED

    @property
    def light(self) -> Light:
        """What shines."""
        return self._lasers.light

    def ionise(self, now_ns: int) -> None:
        """Ionise the centre, as a test or a laboratory with bad luck does."""
        self._reset_spin(now_ns, _UNPOLARISED)
        self._jumps.restart(now_ns, NVState.IONISED)

    # --- the ADwin ------------------------------------------------------------------------

    def emit(self, start_cycle: int, stop_cycle: int) -> Mapping[tuple[int, int], int]:
        """Let an interval pass; see `sim.adwin.hardware.PhotonSource`. A cycle is 1 ns."""
        pulses = 0
        while happened := self._jumps.take(stop_cycle):
            if happened.jump is Jump.PULSE:
                pulses += 1
            else:
                zero = 0.0 if happened.jump is Jump.FLIP else _UNPOLARISED
                self._reset_spin(happened.time_ns, zero)
        return {self._counter: pulses} if pulses else _NO_PULSES

    def dac_changed(self, cycle: int, module: int, channel: int, code: int) -> None:
        """An analogue output has a new code; the time up to `cycle` has passed already."""
        light = self.light
        power = self._lasers.power if light is Light.PUMP else 0.0
        if not self._lasers.set_code(module, channel, code):
            return
        if light is Light.PUMP:
            self.pump(self._changed_at, cycle, power)
        self._changed_at = cycle
        state = NVState.GOOD if self.good else NVState.IONISED
        if self.good:
            if self.light is Light.READOUT:
                bit = self.spin.measure(self._sample(cycle), self._rng.random())
                state = NVState.DARK if bit else NVState.BRIGHT
            elif self.light in {Light.CHECK, Light.REPUMP}:
                self._reset_spin(cycle, _UNPOLARISED)
        self._jumps.restart(cycle, state)

    def next_photon_ns(self, before_ns: int) -> int | None:
        """When the detector pulses next, if the light stays as it is and it is before a time.

        Asking changes nothing. A counter read at a later cycle than this counts the pulse.
        """
        time_ns = self._jumps.next_pulse_ns()
        return None if time_ns is None or time_ns >= before_ns else math.floor(time_ns)

    # --- the AWG --------------------------------------------------------------------------

    def pump(self, start_ns: float, stop_ns: float, power: float = 1.0) -> None:
        """Pump the spin to |0>, in a window of the AWG's spin-pump marker.

        Args:
            start_ns: when the light comes on.
            stop_ns: when it goes off.
            power: factor of the rate; 1 is nominal.

        Raises:
            ValueError: the spin was played beyond the window already.
        """
        if self.good and stop_ns > start_ns:
            constant_ns = self.physics.pump_time_constant_us * _NS_PER_US
            left = math.exp(-power * (stop_ns - start_ns) / constant_ns)
            self.spin.pump(self._sample(stop_ns), left, self._rng.random())

    def _reset_spin(self, time_ns: float, zero: float) -> None:
        self.spin.reset(self._sample(time_ns), zero)

    @staticmethod
    def _sample(time_ns: float) -> int:
        return sample_at_ns(time_ns)
