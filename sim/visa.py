"""What the simulated laboratory sees of its VISA instruments.

The instruments of pyvisa-sim keep their settings in the VISA library, one copy per process and
address. The laboratory reads them there through sessions of its own, next to the driver's.
"""

from __future__ import annotations

from contextlib import closing

from instruments.resources import SIMULATED_SOURCES, open_resource


class SimulatedSource:
    """Reads a simulated microwave source.

    Every property is asked for anew. The session ends with the answer, because QCoDeS puts a
    simulated instrument back to its state after power-on only if nobody else has a session.

    Args:
        address: as the driver's.

    Raises:
        InstrumentUnavailable: there is no simulated source of that address.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._ask("*IDN?")

    @property
    def frequency_hz(self) -> float:
        """Frequency of the carrier."""
        return float(self._ask("SOUR:FREQ?"))

    @property
    def power_dbm(self) -> float:
        """Power of the carrier."""
        return float(self._ask("SOUR:POW?"))

    @property
    def on(self) -> bool:
        """Whether the output is on."""
        return self._ask(":OUTP:STAT?") == "1"

    @property
    def modulated(self) -> bool:
        """Whether the I and Q inputs modulate the carrier."""
        return self._ask(":IQ:STAT?") == "1"

    def _ask(self, question: str) -> str:
        with closing(open_resource(self.address, SIMULATED_SOURCES)) as session:
            session.read_termination = session.write_termination = "\n"
            return session.query(question)
