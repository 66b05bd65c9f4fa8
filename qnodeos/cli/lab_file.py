"""LAB.yaml: what a simulated laboratory in real time consists of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qnodeos.assembly import NetworkConfig
from qnodeos.config import load_config
from sim.realtime.laboratory import GRACE_TICKS

MAX_GRACE_TICKS: Final = 1_000
_PRESET: Final = "paper"

NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class LabFile(BaseModel):
    """A simulated laboratory of two nodes."""

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
    nodes: tuple[NodeName, NodeName] = Field(
        ("client", "server"),
        description="names of the client and the server; their channels have them too",
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
    def _has_two_nodes(self) -> Self:
        if self.nodes[0] == self.nodes[1]:
            raise ValueError(f"nodes are both called {self.nodes[0]!r}; give them two names")
        return self

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
