"""Decoding subroutines: our decoder against netqasm's deserialiser.

Two subroutines: the one the SDK makes of the quantum block of the DQC client, taken off
the wire between CNPU and QNPU of a running circuit; and the same instructions repeated up
to a thousand, where costs per subroutine do not count. Both decoders must find the same
instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from netqasm.lang.instr import NVFlavour
from netqasm.lang.parsing import deserialize

from benchmarks.measure import GC_OFF, Effort, Figure, Outcome, Work, compare
from benchmarks.system import dqc_programs, fast_system
from qnodeos.api.host import SUBROUTINE_HEADER_BYTES, HostReply
from qnodeos.api.netqasm import INSTRUCTION_BYTES, Flavour
from qnodeos.cnpu.virtual import QnpuPort
from qnodeos.qnpu.decoder import decode_subroutine

LONG_INSTRUCTIONS: Final = 1_000
DECODED_PER_ROUND: Final = 40_000
"""Instructions decoded in a round, whatever the length of the subroutine."""
WANTED_SPEED: Final = 5

_SUBROUTINE_TYPE: Final = 2


class RecordingPort:
    """A `QnpuPort` that passes everything on and keeps the subroutines it has seen.

    Attributes:
        subroutines: as the SDK serialises them, from the header on.
    """

    def __init__(self, port: QnpuPort) -> None:
        self._port = port
        self.open_client = port.open_client
        self.close_client = port.close_client
        self.subroutines: list[bytes] = []

    def host_message(
        self, client: int, request: int, raw: bytes, on_reply: Callable[[HostReply], None]
    ) -> None:
        """Pass a message on."""
        if raw[0] == _SUBROUTINE_TYPE:
            self.subroutines.append(raw[1:])
        self._port.host_message(client, request, raw, on_reply)


def client_subroutine() -> bytes:
    """What the SDK sends for the quantum block of the DQC client, without the type byte."""
    system = fast_system(seed=1)
    port = RecordingPort(system.client.cnpu.qnpu)
    system.client.cnpu.qnpu = port
    system.network.run(dqc_programs(circuits=1))
    return port.subroutines[0]


def run(effort: Effort) -> Outcome:
    """Measure."""
    raw = client_subroutine()
    header, body = raw[: SUBROUTINE_HEADER_BYTES - 1], raw[SUBROUTINE_HEADER_BYTES - 1 :]
    long_body = (body * LONG_INSTRUCTIONS)[: LONG_INSTRUCTIONS * INSTRUCTION_BYTES]
    count = len(body) // INSTRUCTION_BYTES
    return Outcome(
        [
            _compare(f"decode DQC client ({count})", header, body, effort),
            _compare(f"decode long ({LONG_INSTRUCTIONS})", header, long_body, effort),
        ],
        GC_OFF,
        notes=["in parentheses: instructions in the subroutine"],
    )


def _compare(name: str, header: bytes, body: bytes, effort: Effort) -> Figure:
    raw = header + body
    ours = [mnemonic for mnemonic, _ in decode_subroutine(body, Flavour.NV)]
    if ours != [instruction.mnemonic for instruction in deserialize(raw, NVFlavour()).instructions]:
        raise RuntimeError(f"{name}: the two decoders disagree; nothing to compare")
    repetitions = effort.of(DECODED_PER_ROUND // len(ours))

    def work(decoder: str, decode: Callable[[], object]) -> Work:
        def repeat() -> None:
            for _ in range(repetitions):
                decode()

        return Work(decoder, "instruction", repetitions * len(ours), lambda: repeat)

    return compare(
        work("decode_subroutine", partial(decode_subroutine, body, Flavour.NV)),
        work("netqasm deserialize", partial(deserialize, raw, NVFlavour())),
        effort,
    ).speed(name, at_least=WANTED_SPEED)
