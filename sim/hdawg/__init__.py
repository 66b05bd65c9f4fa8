"""A simulated Zurich Instruments HDAWG behind a simulated data server.

The seam is the vendor's `ziDAQServer` object: `SimulatedDataServer` takes its place under
zhinst-toolkit and zhinst-qcodes, so the same driver runs with and without hardware. Below
the seam each AWG core executes the listing that the vendor's compiler put in the uploaded
ELF file, one instruction per sequencer cycle, and plays into a timeline of whole samples.

* `server`: the data server; `device`: the instrument; `nodes`, `families`: its node tree;
* `elf`: what an uploaded file holds; `command_table`: the table of a core;
* `sequencer` executes, `dio` listens, `player` plays into a `timeline`; `core` joins them;
* `loops`: what repeats exactly is not executed again;
* `timing`: the latencies and depths, which are not published and therefore knobs.

What the program does is simulated faithfully; nothing here has been compared with hardware.
Opcodes, ports and settings outside the modelled subset are refused, never ignored.
"""

from __future__ import annotations

from sim.hdawg.device import SimulatedHdawg
from sim.hdawg.errors import SequencerFault
from sim.hdawg.server import SimulatedDataServer
from sim.hdawg.timeline import Play, Repeat
from sim.hdawg.timing import HdawgTiming

__all__ = [
    "HdawgTiming",
    "Play",
    "Repeat",
    "SequencerFault",
    "SimulatedDataServer",
    "SimulatedHdawg",
]
