"""What goes wrong inside the simulated generator, as opposed to at its data server."""

from __future__ import annotations


class SequencerFault(RuntimeError):
    """A running program did what the hardware cannot do, or what is not modelled.

    Real hardware would go on silently and play something else; here it stops.
    """
