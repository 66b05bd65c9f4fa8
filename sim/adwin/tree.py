"""The syntax tree of an ADbasic program. Names are in lower case throughout."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sim.adwin.errors import Location


class Kind(Enum):
    """What a value is. A BOOL exists only inside conditions."""

    LONG = "LONG"
    FLOAT = "FLOAT"
    STRING = "STRING"
    BOOL = "condition"


# --- expressions ----------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A literal; an int is LONG, a float is FLOAT."""

    value: int | float


@dataclass(frozen=True)
class Name:
    """A variable, a macro's parameter, PAR_n, FPAR_n, PROCESSDELAY, or a FIFO."""

    name: str


@dataclass(frozen=True)
class Element:
    """An element of an array with one or two dimensions."""

    name: str
    indices: tuple[Expression, ...]


@dataclass(frozen=True)
class ArrayName:
    """A whole array as an argument: ``name[]``."""

    name: str


@dataclass(frozen=True)
class Invoke:
    """A call of a FUNCTION, a built-in function or an instruction, for its value."""

    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True)
class Unary:
    """An operator before its operand: ``-``, ``+`` or ``not``."""

    operator: str
    operand: Expression


@dataclass(frozen=True)
class Binary:
    """An operator between two operands."""

    operator: str
    left: Expression
    right: Expression


Expression = Number | Name | Element | ArrayName | Invoke | Unary | Binary
Target = Name | Element


# --- statements -----------------------------------------------------------------------


@dataclass(frozen=True)
class Statement:
    """Base of all statements."""

    location: Location


@dataclass(frozen=True)
class Assign(Statement):
    """``target = value``."""

    target: Target
    value: Expression


@dataclass(frozen=True)
class Step(Statement):
    """INC or DEC; `by` is 1 or -1."""

    target: Target
    by: int


@dataclass(frozen=True)
class Call(Statement):
    """A call of a SUB or an instruction as a statement."""

    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True)
class End(Statement):
    """END: the process ends here."""


@dataclass(frozen=True)
class Exit(Statement):
    """EXIT: the section ends here."""


Block = tuple[Statement, ...]


@dataclass(frozen=True)
class Arm:
    """A condition of an IF, or the values of a CASE, and what is done then."""

    location: Location
    tests: tuple[Expression, ...]
    block: Block


@dataclass(frozen=True)
class If(Statement):
    """IF with its ELSEIFs in order, and ELSE."""

    arms: tuple[Arm, ...]
    otherwise: Block


@dataclass(frozen=True)
class Select(Statement):
    """SELECTCASE."""

    value: Expression
    arms: tuple[Arm, ...]
    otherwise: Block


@dataclass(frozen=True)
class For(Statement):
    """FOR ... NEXT."""

    target: Target
    first: Expression
    last: Expression
    step: Expression
    body: Block


@dataclass(frozen=True)
class Do(Statement):
    """DO ... UNTIL: the body runs at least once."""

    body: Block
    until: Expression


# --- declarations ---------------------------------------------------------------------


@dataclass(frozen=True)
class Declaration:
    """One name of a DIM.

    Attributes:
        sizes: lengths of its dimensions, as constant expressions; none for a scalar.
        fifo: whether it is a FIFO.
        place: memory named by AT, or None.
    """

    location: Location
    name: str
    kind: Kind
    sizes: tuple[Expression, ...]
    fifo: bool
    place: str | None


@dataclass(frozen=True)
class Parameter:
    """A parameter of a macro; arguments take its place by name."""

    name: str
    is_array: bool


@dataclass(frozen=True)
class Macro:
    """A SUB (`kind` is None) or a FUNCTION; both are inserted where they are called."""

    location: Location
    name: str
    parameters: tuple[Parameter, ...]
    kind: Kind | None
    declarations: tuple[Declaration, ...]
    body: Block


@dataclass(frozen=True)
class Source:
    """A whole program.

    Attributes:
        header: settings of the file's header, names in lower case.
        sections: by name in lower case: lowinit, init, event, finish, lowfinish.
    """

    file: str
    header: dict[str, str]
    declarations: tuple[Declaration, ...]
    macros: dict[str, Macro]
    sections: dict[str, Block]
