"""Photons of attempts on their way to a time tagger at the heralding station.

`HeraldingStation` decides about heralds from probabilities and needs no single photon. While the
time tagger measures, each group of attempts also gets the photons that are detected of it:
binomially distributed, at any of its attempts, as late as the excited state lived, on either of
the two detectors. They have random numbers of their own, so heralds are the same with and
without. Dark counts and jitter of the detectors are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from calibration.instrument_bench import TAGGER_DETECTORS
from sim.entangled_state import EntanglementProtocol, SinglePhotonProtocol
from sim.lab.timing import SAMPLES_PER_NS
from sim.timetagger import SimulatedTaggerLibrary

ASSUMED_DETECTION: Final = 4e-4
"""That an emitted photon is detected, for a protocol that does not say (assumed: the default of
`sim.entangled_state.SinglePhotonProtocol`)."""

_PS_PER_NS: Final = 1_000


class PhotonArrivals:
    """What the inputs of the time tagger see.

    The cables to its inputs are taken to be made up for (the instrument can delay its inputs).

    Args:
        library: of the time tagger.
        markers: its inputs with the toggle lines, by the number of the node.
        protocol: tells how many photons are detected.
        lifetime_ns: of the excited state.
        seed: of the photons.
    """

    def __init__(
        self,
        library: SimulatedTaggerLibrary,
        markers: Sequence[int],
        protocol: EntanglementProtocol,
        lifetime_ns: float,
        seed: str,
    ) -> None:
        self._library = library
        self._markers = markers
        self._detection = (ASSUMED_DETECTION, ASSUMED_DETECTION)
        if isinstance(protocol, SinglePhotonProtocol):
            self._detection = (protocol.p_det_a, protocol.p_det_b)
        self._lifetime_ns = lifetime_ns
        self._rng = np.random.default_rng(list(seed.encode()))

    def mark(self, node: int, time_ns: int, level: bool) -> None:
        """The toggle line of a node changes.

        Args:
            node: 0 or 1.
            time_ns: when it leaves the ADwin.
            level: of the line from then on.
        """
        edge = self._markers[node] if level else -self._markers[node]
        self._library.arrive(edge, time_ns * _PS_PER_NS)

    def attempt(
        self, node: int, alpha: float, arrival_sample: float, period_samples: int, count: int
    ) -> None:
        """A node makes equal attempts.

        Args:
            node: 0 or 1.
            alpha: bright-state population that their microwave pulse makes.
            arrival_sample: when the photon of the first one arrives, if it is emitted at once.
            period_samples: from one to the next.
            count: how many.
        """
        if not self._library.is_listening:
            return
        rng = self._rng
        detected = rng.binomial(count, self._detection[node] * alpha)
        numbers = rng.integers(count, size=detected)
        lived_ns = rng.exponential(self._lifetime_ns, size=detected)
        detectors = rng.integers(len(TAGGER_DETECTORS), size=detected)
        times_ns = (arrival_sample + numbers * period_samples) / SAMPLES_PER_NS + lived_ns
        for detector, time_ns in zip(detectors.tolist(), times_ns.tolist(), strict=True):
            self._library.arrive(TAGGER_DETECTORS[detector], round(time_ns * _PS_PER_NS))
