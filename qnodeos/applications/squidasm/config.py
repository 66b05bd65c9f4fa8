"""Network configurations under the names that SquidASM-style scripts use.

The fields, their units (nanoseconds, kilometres) and their defaults are those that the
simulator documents; a field it does not have is refused. What a configuration means here is
said in `qnodeos.applications.squidasm.translation`.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from qnodeos.config.loader import read_text
from qnodeos.errors import ConfigurationError
from qnodeos.service.schedule_plan import MAX_LINKS, MAX_NODES

Probability = Annotated[float, Field(ge=0, le=1)]
Nanoseconds = Annotated[float, Field(ge=0, le=1e18)]
ConfigT = TypeVar("ConfigT", bound=BaseModel)


class Configuration(BaseModel):
    """Scripts make these, read them from files, and change them afterwards."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a YAML file.

        Raises:
            ConfigurationError: it cannot be read, or is not such a configuration.
        """
        try:
            document = YAML(typ="safe").load(read_text(path))
        except YAMLError as error:
            raise ConfigurationError(f"{path} is no YAML: {error}") from None
        if not isinstance(document, dict):
            raise ConfigurationError(f"{path}: a {cls.__name__} is a table of names and values")
        # Such files define what is used more than once under further names, with an anchor.
        known = {name: value for name, value in document.items() if name in cls.model_fields}
        return parse(cls, known, os.fspath(path))


class GenericQDeviceConfig(Configuration):
    """Equal qubits, all with gates between each other."""

    num_qubits: int = Field(2, ge=1)
    num_comm_qubits: int = Field(2, ge=0)
    T1: Nanoseconds = 10_000_000_000
    T2: Nanoseconds = 1_000_000_000
    init_time: Nanoseconds = 10_000
    single_qubit_gate_time: Nanoseconds = 1_000
    two_qubit_gate_time: Nanoseconds = 100_000
    measure_time: Nanoseconds = 10_000
    single_qubit_gate_depolar_prob: Probability = 0.0
    two_qubit_gate_depolar_prob: Probability = 0.01

    @classmethod
    def perfect_config(cls, num_qubits: int = 2) -> GenericQDeviceConfig:
        """A device whose operations have no errors."""
        return cls(
            num_qubits=num_qubits,
            init_time=0,
            measure_time=0,
            single_qubit_gate_depolar_prob=0,
            two_qubit_gate_depolar_prob=0,
        )


class NVQDeviceConfig(Configuration):
    """The electron of an NV centre and carbon spins around it."""

    num_qubits: int = Field(2, ge=1)
    electron_init_depolar_prob: Probability = 0.05
    electron_single_qubit_depolar_prob: Probability = 0.0
    prob_error_0: Probability = 0.05
    prob_error_1: Probability = 0.005
    carbon_init_depolar_prob: Probability = 0.05
    carbon_z_rot_depolar_prob: Probability = 0.001
    ec_gate_depolar_prob: Probability = 0.008
    electron_T1: Nanoseconds = 1_000_000_000
    electron_T2: Nanoseconds = 300_000_000
    carbon_T1: Nanoseconds = 150_000_000_000
    carbon_T2: Nanoseconds = 1_500_000_000
    carbon_init: Nanoseconds = 310_000
    carbon_rot_x: Nanoseconds = 500_000
    carbon_rot_y: Nanoseconds = 500_000
    carbon_rot_z: Nanoseconds = 500_000
    electron_init: Nanoseconds = 2_000
    electron_rot_x: Nanoseconds = 5
    electron_rot_y: Nanoseconds = 5
    electron_rot_z: Nanoseconds = 5
    ec_controlled_dir_x: Nanoseconds = 500_000
    ec_controlled_dir_y: Nanoseconds = 500_000
    measure: Nanoseconds = 3_700

    @classmethod
    def perfect_config(cls, num_qubits: int = 2) -> NVQDeviceConfig:
        """A device whose operations have no errors."""
        return cls(
            num_qubits=num_qubits,
            electron_init_depolar_prob=0,
            electron_single_qubit_depolar_prob=0,
            prob_error_0=0,
            prob_error_1=0,
            carbon_init_depolar_prob=0,
            carbon_z_rot_depolar_prob=0,
            ec_gate_depolar_prob=0,
        )


class StackConfig(Configuration):
    """A node: its name, and the device it has."""

    name: str
    qdevice_typ: str
    qdevice_cfg: Any = None

    @classmethod
    def perfect_generic_config(cls, name: str) -> StackConfig:
        """A node whose device has no errors."""
        return cls(
            name=name, qdevice_typ="generic", qdevice_cfg=GenericQDeviceConfig.perfect_config()
        )


class PerfectLinkConfig(Configuration):
    """Exact pairs after a fixed time."""

    state_delay: Nanoseconds = 1_000


class DepolariseLinkConfig(Configuration):
    """Pairs with white noise, with a probability in each cycle."""

    fidelity: float = Field(ge=0.25, le=1)
    prob_success: float = Field(1.0, gt=0, le=1)
    t_cycle: Nanoseconds = 0
    random_bell_state: bool = False


class HeraldedLinkConfig(Configuration):
    """A station in the middle of a fibre, and two photons per pair (double click)."""

    length: float = Field(ge=0)
    p_loss_init: Probability = 0
    p_loss_length: float = Field(0.25, ge=0)
    speed_of_light: float = Field(200_000, gt=0)
    dark_count_probability: Probability = 0
    detector_efficiency: Probability = 1
    visibility: Probability = 1
    num_resolving: bool = False


class LinkConfig(Configuration):
    """What joins two nodes."""

    stack1: str
    stack2: str
    typ: str
    cfg: Any = None

    @classmethod
    def perfect_config(cls, stack1: str, stack2: str) -> LinkConfig:
        """Exact pairs."""
        return cls(stack1=stack1, stack2=stack2, typ="perfect")


class InstantCLinkConfig(Configuration):
    """Classical messages that take no time."""


class DefaultCLinkConfig(Configuration):
    """Classical messages that take a fixed time, given as such or as a length (km) of fibre."""

    delay: Nanoseconds | None = None
    length: float | None = Field(None, ge=0)
    speed_of_light: float = Field(200_000, gt=0)


class CLinkConfig(Configuration):
    """How classical messages get from one node to another."""

    stack1: str
    stack2: str
    typ: str = "instant"
    cfg: Any = None


class StackNetworkConfig(Configuration):
    """A network: its nodes, and the links between them."""

    stacks: list[StackConfig] = Field(max_length=MAX_NODES)
    links: list[LinkConfig] = Field(default_factory=list, max_length=MAX_LINKS)
    clinks: list[CLinkConfig] = Field(default_factory=list, max_length=MAX_LINKS)


def parse(kind: type[ConfigT], values: Any, where: str) -> ConfigT:
    """Check values against a kind of configuration.

    Args:
        kind: its class.
        values: of its fields, or a configuration of that kind.
        where: for messages.

    Raises:
        ConfigurationError: they are no such configuration.
    """
    if isinstance(values, BaseModel) and not isinstance(values, kind):
        raise ConfigurationError(
            f"{where}: expected a {kind.__name__}, not a {type(values).__name__}"
        )
    try:
        return kind.model_validate({} if values is None else values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or kind.__name__}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ConfigurationError(f"{where}: {problems}") from None
