"""`qnodeos lab`: the simulated laboratory as a process of its own."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from qnodeos.assembly import TwoDevices
    from qnodeos.cli.lab_file import LabFile
    from qnodeos.engine.channel import DevicePort
    from qnodeos.service.realtime import PreparedProcess
    from qnodeos.service.schedule_plan import LinkName
    from sim.link import EntanglementLink
    from sim.realtime.laboratory import RealTimeDevice, RealTimeLaboratory
    from sim.realtime.statistics import NodeStatistics

START_DELAY_NS: Final = 1_000_000
"""From the start of the clock to tick 0: the channels must be there by then (assumed)."""


def lab(
    path: Annotated[Path, typer.Argument(metavar="LAB.yaml", help="The laboratory.")],
    json: Annotated[
        Path | None, typer.Option(help="Write what was counted here, at the end.")
    ] = None,
) -> None:
    """Run the simulated laboratory in real time, until Ctrl-C.

    QNPU services (`qnodeos serve`) reach their devices through the channels it makes.
    """
    from qnodeos.cli.lab_file import load_lab
    from qnodeos.service.notify import Notifier
    from qnodeos.signals import StopSignals
    from sim.realtime.loop import may_spin, serve

    file = load_lab(path)
    spin = file.pace == "spinning" or (file.pace == "auto" and may_spin(len(file.all_nodes)))
    with ExitStack() as cleanup:
        stop = cleanup.enter_context(StopSignals())
        notifier = cleanup.enter_context(Notifier())
        opened = _open(file, cleanup)
        prepared = cleanup.enter_context(_prepare(file, spin))
        mode = "spinning" if spin else "event-driven"
        line = f"{file.backend} devices of {_listed(file.all_nodes)}, {mode}"
        typer.echo(f"lab: {line}; channels in {file.directory}; Ctrl-C ends it")
        typer.echo(f"lab: {prepared.report.summary()}")
        notifier.ready(line)

        def report() -> None:
            notifier.alive()
            notifier.status(_status(opened))

        serve(opened.laboratories, list(opened.ports.values()), stop, spin=spin, report=report)
        notifier.stopping()
        counted = _counted(file, opened, mode)
    _print(counted)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(json_module.dumps(counted, indent=1) + "\n", "utf-8")


@dataclass(frozen=True)
class _Opened:
    """What the process serves.

    Attributes:
        laboratories: one with the NV pair and one with the registers, if there are any, and one
            per ion.
        ports: channels by node.
        pair: the NV pair; None if there is none.
        links: of the registers, by the names of their two nodes.
    """

    laboratories: list[RealTimeLaboratory]
    ports: dict[str, DevicePort]
    pair: TwoDevices | None
    links: Mapping[LinkName, EntanglementLink]

    @property
    def heralds(self) -> int | None:
        """Of all links together; None if there is no link."""
        counts = [link.heralds for link in self.links.values()]
        if self.pair is not None:
            counts.append(self.pair.heralds())
        return sum(counts) if counts else None

    @property
    def batches(self) -> int | None:
        """Of attempts, of all links together; None if there is none, or one does not count."""
        counts = [link.batches for link in self.links.values()]
        if self.pair is not None:
            if self.pair.batches is None:
                return None
            counts.append(self.pair.batches())
        return sum(counts) if counts else None

    @property
    def statistics(self) -> dict[str, NodeStatistics]:
        """By the name of the node."""
        return {
            name: node
            for laboratory in self.laboratories
            for name, node in laboratory.statistics.items()
        }


def _open(file: LabFile, cleanup: ExitStack) -> _Opened:
    """Make devices and channels, and start the clock."""
    from qnodeos.assembly import ROLES, build_devices
    from qnodeos.assembly.ion import build_ion_device
    from qnodeos.assembly.registers import build_registers
    from qnodeos.engine.channel import DevicePort
    from sim.realtime.laboratory import RealTimeLaboratory

    pair = build_devices(file.network, file.seed, cleanup, file.backend) if file.nodes else None
    together: list[dict[str, RealTimeDevice]] = []
    if pair is not None:
        together.append(
            {name: pair.devices[role] for name, role in zip(file.nodes, ROLES, strict=True)}
        )
    for name, node in file.ions.items():
        device = build_ion_device(node, f"{file.seed}/{name}", cleanup, file.backend)
        together.append({name: device})
    links: Mapping[LinkName, EntanglementLink] = {}
    if file.registers is not None:
        registers = build_registers(file.registers, file.seed)
        together.append(dict(registers.devices))
        links = registers.links
    file.directory.mkdir(parents=True, exist_ok=True)
    epoch_ns = time.monotonic_ns() + START_DELAY_NS
    ports: dict[str, DevicePort] = {}
    laboratories = []
    for devices in together:
        for name, device in devices.items():
            ports[name] = cleanup.enter_context(
                DevicePort.create(
                    file.channel(name),
                    name=f"{name}: {device.capabilities.name}",
                    tick_ns=device.capabilities.tick_ns,
                    epoch_ns=epoch_ns,
                    capabilities=device.capabilities,
                )
            )
        laboratories.append(
            RealTimeLaboratory(
                {name: (device, ports[name]) for name, device in devices.items()},
                epoch_ns,
                grace_ticks=file.grace_ticks,
            )
        )
    return _Opened(laboratories, ports, pair, links)


def _prepare(file: LabFile, spin: bool) -> PreparedProcess:
    """Ask the operating system for what the part of hardware needs.

    A loop that never sleeps gets no priority: it would keep everything else off its core.
    """
    from qnodeos.service.realtime import RealtimeSettings, prepare_process

    priority = 0 if spin else file.priority
    return prepare_process(RealtimeSettings(tick_priority=0, policy_priority=priority))


def _status(opened: _Opened) -> str:
    nodes = opened.statistics.values()
    heralds = "" if opened.heralds is None else f"{opened.heralds} heralds, "
    return (
        f"{sum(node.commands for node in nodes)} commands, {heralds}"
        f"{sum(node.late_answers for node in nodes)} of {sum(node.answers for node in nodes)} "
        "answers late"
    )


def _counted(file: LabFile, opened: _Opened, mode: str) -> dict[str, Any]:
    return {
        "backend": file.backend,
        "mode": mode,
        "batches": opened.batches,
        "heralds": opened.heralds,
        "links": {
            "-".join(name): {"batches": link.batches, "heralds": link.heralds}
            for name, link in opened.links.items()
        },
        "nodes": {
            name: node.summary()
            | {"attached": opened.ports[name].generation, "tick_ns": laboratory.tick_ns}
            for laboratory in opened.laboratories
            for name, node in laboratory.statistics.items()
        },
    }


def _print(counted: dict[str, Any]) -> None:
    batches = "" if counted["batches"] is None else f"{counted['batches']} batches, "
    if counted["heralds"] is not None:
        typer.echo(f"lab: {batches}{counted['heralds']} heralds")
    for name, node in counted["nodes"].items():
        lag, late = node["lag_us"], node["lateness_us"]
        typer.echo(
            f"lab: {name}: {node['commands']} commands, taken in after {lag['p50']:.0f} us "
            f"(99 %: {lag['p99']:.0f}, most {lag['max']:.0f}); {node['answers']} answers, "
            f"{node['late_answers']} of them late (99 %: {late['p99']:.0f} us, most "
            f"{late['max']:.0f}); {node['moved_commands']} commands moved"
        )


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
