"""Checks of a node file on this machine: can its service start here, and do what it says."""

from __future__ import annotations

import os
import ssl
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from qnodeos.errors import QNodeOSError
from qnodeos.service.doctor.findings import Finding, ok, problem, warning
from qnodeos.service.doctor.machine import parse_ranges, ranges
from qnodeos.service.doctor.system import System
from qnodeos.service.node_file import NodeFile, load_node
from qnodeos.transport import Address

RENEW_DAYS: Final = 30
"""A certificate that ends sooner should be renewed now (assumed)."""


def check_node(
    path: Path, system: System, now_s: float, platforms: Collection[str] | None = None
) -> list[Finding]:
    """All checks of a node file.

    Args:
        path: of the file.
        system: the machine.
        now_s: seconds since 1970, for the ends of certificates.
        platforms: those that there are; None: not checked.
    """
    try:
        node = load_node(path)
    except QNodeOSError as error:
        return [problem("node file", str(error), "correct the file")]
    if platforms is not None and node.platform not in platforms:
        return [
            problem(
                "node file",
                f"{path}: there is no platform {node.platform!r}",
                f"choose one of: {', '.join(platforms)}",
            )
        ]
    return [
        ok(
            "node file",
            f"{path}: node {node.name}, number {node.node_id}, scheduler {node.scheduler}",
        ),
        check_device(node, system),
        check_mode(node, system),
        *check_cores_named(node, system),
        *check_addresses(node, system),
        *check_certificates(node, now_s),
    ]


def check_device(node: NodeFile, system: System) -> Finding:
    """The device of the node can be opened, as far as that shows without opening it."""
    device = node.device
    if device.link == "loopback":
        return ok("device", "loopback: none, the service answers itself")
    if device.link == "shm":
        return _check_channel(str(device.path), system)
    path = f"/dev/spidev{device.bus}.{device.device}"
    if not system.may(path, os.F_OK):
        return problem(
            "device",
            f"there is no {path}",
            "enable the bus (device tree overlay, or `modprobe spidev`), or correct device.bus",
        )
    if not system.may(path, os.R_OK | os.W_OK):
        return problem(
            "device",
            f"{path} may not be used by this account",
            'udev rule: SUBSYSTEM=="spidev", GROUP="spi", MODE="0660"; add the account to spi',
        )
    return ok("device", path)


def _check_channel(path: str, system: System) -> Finding:
    folder = str(Path(path).parent)
    if system.may(folder, os.F_OK) and not system.may(folder, os.R_OK | os.X_OK):
        return problem(
            "device",
            f"this account may not look into {folder}",
            "run the lab and the service with the same account",
        )
    if not system.may(path, os.F_OK):
        return warning("device", f"there is no {path} yet", "start `qnodeos lab`")
    if not system.may(path, os.R_OK | os.W_OK):
        return problem(
            "device",
            f"{path} may not be used by this account",
            "run the lab and the service with the same account",
        )
    return ok("device", path)


def check_mode(node: NodeFile, system: System) -> Finding:
    """What the node file wants of the engine can be had."""
    mode, cores = node.realtime.mode, len(system.cores())
    if mode != "spinning":
        return ok("mode", mode)
    if not system.native_engine():
        return problem(
            "mode",
            "spinning needs the C extension of the tick engine, which is missing",
            "install a C compiler and then qnodeos again, or set realtime.mode to event-paced",
        )
    if cores < 2:
        return problem(
            "mode",
            f"spinning on {cores} core: the policy thread would never run",
            "set realtime.mode to event-paced",
        )
    return ok("mode", mode)


def check_cores_named(node: NodeFile, system: System) -> Iterator[Finding]:
    """The cores that the node file names exist, differ, and that of the ticks is isolated."""
    present = parse_ranges(system.text("/sys/devices/system/cpu/online") or "")
    isolated = parse_ranges(system.text("/sys/devices/system/cpu/isolated") or "")
    named = {
        "tick_core": node.realtime.tick_core,
        "policy_core": node.realtime.policy_core,
    }
    for field, core in named.items():
        if core is not None and present and core not in present:
            yield problem(field, f"there is no core {core}", f"use one of {ranges(present)}")
    tick, policy = named.values()
    if tick is None:
        if policy is not None and node.realtime.mode != "event-paced":
            yield warning(
                "policy_core",
                f"core {policy} is not used, because the tick thread has none of its own",
                "name realtime.tick_core, too",
            )
        return
    if tick == policy:
        yield problem(
            "tick_core",
            f"core {tick} is that of the policy thread, too, which would not run while it spins",
            "name two cores",
        )
    elif tick in isolated:
        yield ok("tick_core", f"core {tick}, isolated")
    elif not present or tick in present:
        yield warning(
            "tick_core",
            f"core {tick} is not isolated: other work delays ticks",
            f"boot with isolcpus=managed_irq,domain,{tick} nohz_full={tick} rcu_nocbs={tick}",
        )


def check_addresses(node: NodeFile, system: System) -> Iterator[Finding]:
    """Everything the node listens on is free, or its own service has it already."""
    places = [(f"api.listen[{index}]", address) for index, address in enumerate(node.api.listen)]
    if node.peer is not None:
        places.append(("peer.listen", node.peer.listen))
    is_running = any(
        system.running_node(address) == node.name for address in node.api.listen if address.is_local
    )
    for field, address in places:
        if address.is_unix:
            yield _check_unix(field, address, node, system)
        else:
            yield _check_tcp(field, address, system, is_running)


def _check_unix(field: str, address: Address, node: NodeFile, system: System) -> Finding:
    folder = str(Path(address.path).parent)
    running = system.running_node(address)
    if running == node.name:
        return ok(field, f"{address}: the QNPU of this node answers")
    if running is not None:
        return problem(
            field, f"{address}: the QNPU of node {running} answers", "give each node its own path"
        )
    if not system.may(folder, os.F_OK):
        grade = warning if folder.startswith("/run/") else problem
        return grade(field, f"there is no {folder}", "make it; the systemd socket unit does so")
    if not system.may(folder, os.W_OK | os.X_OK):
        return problem(
            field,
            f"this account may not make a socket in {folder}",
            "choose another folder, or give the account write access to it",
        )
    if system.may(address.path, os.F_OK) and not system.is_socket(address.path):
        return problem(field, f"{address.path} is not a socket", "move that file away")
    return ok(field, str(address))


def _check_tcp(field: str, address: Address, system: System, is_running: bool) -> Finding:
    refusal = system.listen_error(address)
    if refusal is None:
        return ok(field, f"{address} is free")
    if is_running:
        return ok(field, f"{address} is in use, and the QNPU of this node runs")
    return problem(
        field,
        f"{address}: {refusal.strerror or refusal}",
        "end the process that listens there (`ss -ltnp`), or choose another address",
    )


def check_certificates(node: NodeFile, now_s: float) -> Iterator[Finding]:
    """The node's certificate is valid, for its name and for both ends of a connection."""
    if node.tls is None:
        return
    try:
        end_s = _shake_hands(node.tls.server_context(), node.tls.client_context(), node.name)
    except (QNodeOSError, OSError) as error:  # ssl.SSLError is an OSError
        yield problem(
            "certificates", str(error), "make new ones, see docs/deployment.md, Certificates"
        )
        return
    days = int((end_s - now_s) // 86_400)
    found = f"of {node.name}, valid for {days} more days"
    if days < RENEW_DAYS:
        yield warning("certificates", found, "renew them, see docs/deployment.md, Certificates")
    else:
        yield ok("certificates", found)


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> int:
    """Let a node connect to itself in memory.

    Returns:
        When its certificate ends, in seconds since 1970.

    Raises:
        ssl.SSLError: either end refuses the other's certificate.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_side=False, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    finished: set[ssl.SSLObject] = set()
    for _ in range(10):  # TLS 1.3 needs two rounds
        for end in ends:
            if end not in finished:
                try:
                    end.do_handshake()
                    finished.add(end)
                except ssl.SSLWantReadError:
                    continue
    certificate = ends[0].getpeercert() or {}
    return int(ssl.cert_time_to_seconds(str(certificate["notAfter"])))
