"""LAB.yaml: what a simulated laboratory in real time consists of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qnodeos.assembly import NetworkConfig
from qnodeos.assembly.description import DeviceNetwork
from qnodeos.assembly.ion import IonNodeConfig
from qnodeos.config import load_config
from sim.realtime.laboratory import GRACE_TICKS

MAX_GRACE_TICKS: Final = 1_000
MAX_IONS: Final = 8
_PRESET: Final = "paper"

NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class LabFile(BaseModel):
    """A simulated laboratory: an NV pair with a link, registers with links, ions, or all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0)] = Field(1, description="of all randomness of the physics")
    backend: Literal["behavioural", "instrument"] = Field(
        "behavioural",
        description="devices that answer from a model, or nodes instrument by instrument (slower "
        "than real time; what comes late is counted)",
    )
    preset: Literal["fast", "paper"] = Field(
        _PRESET, description="the link: attempts without interruption, or the published rate"
    )
    network: NetworkConfig = Field(
        default_factory=lambda: NetworkConfig.preset(_PRESET),
        description="client, server and link, with the fields of a configuration file; what is "
        "not named is as in the preset. The schedule is the controller's",
    )
    nodes: Annotated[tuple[NodeName, ...], Field(max_length=2)] = Field(
        ("client", "server"),
        description="names of the client and the server, an NV pair; their channels have them too. "
        "None: only registers and ions",
    )
    ions: Annotated[dict[NodeName, IonNodeConfig], Field(max_length=MAX_IONS)] = Field(
        {},
        description="trapped-ion nodes by name, which have no link to each other nor to the "
        "others; at instrument level there can be one",
    )
    registers: DeviceNetwork | None = Field(
        None,
        description="nodes with registers of qubits, generic or NV with memories, and the links "
        "between them; not at instrument level",
    )
    directory: Path = Field(
        Path("run"),
        description="of the channels, NAME.channel; relative to this file; best in memory",
    )
    pace: Literal["auto", "spinning", "event-driven"] = Field(
        "auto",
        description="never sleep, or sleep until there is something to do; auto spins where there "
        "are more cores than nodes that spin need",
    )
    grace_ticks: Annotated[int, Field(ge=1, le=MAX_GRACE_TICKS)] = Field(
        GRACE_TICKS,
        description="how long a request for entanglement may be on its way from a QNPU; a lone "
        "one is told so that much later (assumed)",
    )
    priority: Annotated[int, Field(ge=0, le=99)] = Field(
        60,
        description="SCHED_FIFO priority of the laboratory, which plays the part of hardware; 0 "
        "for none. Not used where it spins",
    )

    @model_validator(mode="after")
    def _has_nodes(self) -> Self:
        if len(self.nodes) == 1:
            raise ValueError(
                f"nodes names {self.nodes[0]!r} alone; name the client and the server, or none"
            )
        names = self.all_nodes
        if not names:
            raise ValueError("there are neither nodes nor ions nor registers; name some")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two nodes are called {name!r}; give them two names")
        if self.backend == "instrument" and self.registers is not None:
            raise ValueError(
                "registers have no instrument level; choose backend: behavioural, or leave them out"
            )
        if self.backend == "instrument" and len(self.ions) > 1:
            raise ValueError(
                f"ions names {len(self.ions)} nodes; at instrument level a laboratory has one"
            )
        return self

    @property
    def all_nodes(self) -> tuple[str, ...]:
        """Names of all nodes."""
        registers = () if self.registers is None else self.registers.nodes
        return (*self.nodes, *self.ions, *registers)

    def channel(self, node: str) -> Path:
        """The file of a node's channel."""
        return self.directory / f"{node}.channel"


def load_lab(path: Path) -> LabFile:
    """Read a laboratory file; a relative directory in it is taken from the file's folder.

    Raises:
        ConfigurationError: the file is wrong.
    """
    # Which preset the rest is based on stands in the file itself.
    named = load_config(path, LabFile).preset
    base = LabFile(preset=named, network=NetworkConfig.preset(named))
    file = load_config(path, LabFile, base)
    return file.model_copy(update={"directory": path.absolute().parent / file.directory})
