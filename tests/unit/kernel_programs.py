"""NetQASM subroutines and host messages for the tests of the kernel."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Final

from netqasm.backend import messages as sdk
from netqasm.lang.instr.flavour import NVFlavour, VanillaFlavour
from netqasm.lang.parsing.text import parse_text_subroutine

from qnodeos.api.netqasm import INSTRUCTION_BYTES, Flavour
from qnodeos.qnpu.isa import CORE, FLAVOURS


@cache
def assemble(text: str, flavour: Flavour = Flavour.VANILLA) -> bytes:
    """The body of a subroutine, from NetQASM text, by netqasm's own parser."""
    parser = NVFlavour() if flavour is Flavour.NV else VanillaFlavour()
    subroutine = parse_text_subroutine("# NETQASM 0.10\n# APPID 0\n" + text, flavour=parser)
    return b"".join(bytes(instruction.serialize()) for instruction in subroutine.instructions)


def encode(*instructions: tuple[str | int, ...], flavour: Flavour = Flavour.VANILLA) -> bytes:
    """The body of a subroutine from (mnemonic, operands...), including nonsensical ones."""
    table = {name: (code, layout) for code, (name, layout) in CORE.items()}
    table |= {name: (code, layout) for code, (name, layout) in FLAVOURS[flavour].items()}
    body = b""
    for mnemonic, *operands in instructions:
        code, layout = table[str(mnemonic)]
        packed = bytes([code]) + struct.pack(layout.format, *operands)
        body += packed.ljust(INSTRUCTION_BYTES, b"\0")
    return body


def register(name: str) -> int:
    """Encoded byte of a register: R0 is 0, Q0 is 2."""
    return "RCQM".index(name[0]) | int(name[1:]) << 2


def init_app(app_id: int, max_qubits: int = 3) -> bytes:
    """The SDK's message that registers a program."""
    return bytes(sdk.InitNewAppMessage(app_id=app_id, max_qubits=max_qubits))


def open_socket(app_id: int, socket_id: int, remote_node: int, remote_socket: int) -> bytes:
    """The SDK's message that opens an ER socket."""
    return bytes(
        sdk.OpenEPRSocketMessage(
            app_id=app_id,
            epr_socket_id=socket_id,
            remote_node_id=remote_node,
            remote_epr_socket_id=remote_socket,
            min_fidelity=50,
        )
    )


def stop_app(app_id: int) -> bytes:
    """The SDK's message that ends a program."""
    return bytes(sdk.StopAppMessage(app_id=app_id))


def submit(app_id: int, program: str | bytes, flavour: Flavour = Flavour.VANILLA) -> bytes:
    """A subroutine message from text or from the bytes of its body."""
    body = assemble(program, flavour) if isinstance(program, str) else program
    return struct.pack("<BBBH", 2, 0, 10, app_id) + body


def create_epr(
    *,
    remote: int = 2,
    socket: int = 0,
    pairs: int = 1,
    virtuals: Sequence[int] | None = None,
    arguments: dict[int, int] | None = None,
    base: int = 0,
    wait: bool = True,
) -> str:
    """A create request; its results are array ``base``, returned if it waits for them."""
    return _request("create_epr C1 C2 C3 C4 C5", **locals())


def recv_epr(
    *,
    remote: int = 1,
    socket: int = 0,
    pairs: int = 1,
    virtuals: Sequence[int] | None = None,
    base: int = 0,
    wait: bool = True,
    measured: bool = False,
) -> str:
    """A receive request; its results are array ``base``, returned if it waits for them.

    If its halves are measured it names C0, which is never set, as the SDK does.
    """
    options = dict(locals())
    qubits = "C0" if options.pop("measured") else "C3"
    return _request(f"recv_epr C1 C2 {qubits} C5", arguments=None, **options)


def measure_directly(**more: int) -> dict[int, int]:
    """Arguments of a measure-directly request; names are those of `_ARGUMENT`."""
    return {0: 1} | keep(**more)


def prepare(**more: int) -> dict[int, int]:
    """Arguments of a request for remote state preparation."""
    return {0: 2} | keep(**more)


def keep(**more: int) -> dict[int, int]:
    """Arguments of a create-and-keep request."""
    return {_ARGUMENT[name]: value for name, value in more.items()}


_ARGUMENT: Final = {
    "random_local": 2,
    "random_remote": 3,
    "min_fidelity": 4,
    "time_unit": 5,
    "max_time": 6,
    "priority": 7,
    "atomic": 8,
    "consecutive": 9,
    **{f"local_weight_{i}": 10 + i for i in range(2)},
    **{f"remote_weight_{i}": 12 + i for i in range(2)},
    **{f"local_{i}": 14 + i for i in range(3)},
    **{f"remote_{i}": 17 + i for i in range(3)},
    "local_axes": 20,
    "remote_axes": 21,
}


def _request(
    instruction: str,
    *,
    remote: int,
    socket: int,
    pairs: int,
    virtuals: Sequence[int] | None,
    arguments: dict[int, int] | None,
    base: int,
    wait: bool,
) -> str:
    lines = [f"array {10 * pairs} @{base}", f"array {pairs} @{base + 1}"]
    names = range(pairs) if virtuals is None else virtuals
    lines += [f"store {virtual} @{base + 1}[{i}]" for i, virtual in enumerate(names)]
    lines.append(f"array 22 @{base + 2}")
    for index, value in ({1: pairs} | (arguments or {})).items():
        lines.append(f"store {value} @{base + 2}[{index}]")
    operands = (remote, socket, base + 1, base + 2, base)
    lines += [f"set C{i} {value}" for i, value in enumerate(operands, start=1)]
    lines.append(instruction)
    if wait:
        lines += [f"wait_all @{base}[0:{10 * pairs}]", f"ret_arr @{base}"]
    return "\n".join(lines) + "\n"
