"""Expressions of ADbasic as Python.

Python's integers have no width. Sums and products may therefore leave the 32 bits of a LONG
inside an expression, which does no harm as long as they are brought back before anything that
could tell: a comparison, division, conversion, index, call or store. `Code` carries the range
a value can have, so that most values need no such step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sim.adwin import tree
from sim.adwin.arithmetic import single, wrap
from sim.adwin.errors import AdbasicError, Location
from sim.adwin.hardware import INSTRUCTIONS
from sim.adwin.options import LONG_MAX, LONG_MIN, ProcessorModel
from sim.adwin.program import ArrayShape
from sim.adwin.tree import Kind

_COMPARISONS: Final = {"=": "==", "<>": "!=", "<": "<", ">": ">", "<=": "<=", ">=": ">="}
_LOGIC: Final = {"and": "and", "or": "or"}
_BITS: Final = {"and": "&", "or": "|", "xor": "^"}
_GLOBAL: Final = re.compile(r"(f?)par_(\d+)$")
MAX_PAR: Final = 80

_MATHEMATICS: Final = frozenset(
    {"sin", "cos", "tan", "arcsin", "arccos", "arctan", "exp", "ln", "log", "sqrt"}
)
_EXTREMES: Final = {
    "min_long": ("min", Kind.LONG),
    "max_long": ("max", Kind.LONG),
    "min_float": ("min", Kind.FLOAT),
    "max_float": ("max", Kind.FLOAT),
}
_SHIFTS: Final = frozenset({"shift_left", "shift_right"})
_FIFO_QUERIES: Final = {"fifo_full": "len", "fifo_empty": "free_slots"}
BUILT_IN: Final = frozenset(
    {"abs", "mod", "read_timer", *_MATHEMATICS, *_EXTREMES, *_SHIFTS, *_FIFO_QUERIES}
)
"""Functions of the language, beside the instructions to modules."""


@dataclass(frozen=True)
class Code:
    """An expression in Python.

    Attributes:
        text: the Python, safe to put beside any operator.
        low: least value a LONG can have; it may lie outside the 32 bits.
        high: greatest value.
        acts: whether evaluating it does something besides giving a value.
    """

    text: str
    kind: Kind
    low: int = LONG_MIN
    high: int = LONG_MAX
    acts: bool = False

    @property
    def fits(self) -> bool:
        """Whether the value is within 32 bits as it stands."""
        return self.low >= LONG_MIN and self.high <= LONG_MAX


@dataclass
class Scope:
    """What names mean in a piece of source.

    Attributes:
        scalars: Python name and kind of every variable.
        arrays: Python name of every array.
        parameters: what stands for a macro's parameters, and the scope it is to be read in.
        parent: where to look for what is not here.
        active: the macros whose bodies this is in, outermost first.
    """

    scalars: dict[str, tuple[str, Kind]] = field(default_factory=dict)
    arrays: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, tuple[tree.Expression, Scope]] = field(default_factory=dict)
    parent: Scope | None = None
    active: tuple[str, ...] = ()

    def resolve(self, name: str) -> tuple[tree.Expression, Scope] | str | tuple[str, Kind] | None:
        """An argument with its scope, the Python name of an array or scalar, or nothing."""
        scope: Scope | None = self
        while scope is not None:
            for table in (scope.parameters, scope.arrays, scope.scalars):
                if name in table:
                    return table[name]
            scope = scope.parent
        return None


class ExpressionWriter:
    """Turns expressions into Python, and adds up what they cost.

    Args:
        model: the processor.
        shapes: shape of every array, by its Python name.
        inline: inserts a FUNCTION before the current statement; returns its result.

    Attributes:
        cost: cycles of everything written since this was last set to 0.
        timed: whether something written since this was last set to False depends on the time.
        used: names of arrays and instructions that the written text needs.
        location: the statement at hand.
    """

    def __init__(
        self,
        model: ProcessorModel,
        shapes: dict[str, ArrayShape],
        inline: Callable[[tree.Invoke, Scope], Code],
    ) -> None:
        self.cost = 0
        self.timed = False
        self.used: set[str] = set()
        self.location = Location("", 0, "")
        self._model = model
        self._costs = model.costs
        self._shapes = shapes
        self._inline = inline
        self._single = model.semantics.float_bits == 32

    def refuse(self, message: str) -> AdbasicError:
        """An error at the statement at hand."""
        return AdbasicError(message, self.location)

    # --- by kind ------------------------------------------------------------------------

    def long(self, expression: tree.Expression, scope: Scope) -> Code:
        """A LONG within 32 bits; a FLOAT is converted."""
        return self.fitted(self.as_long(self.value(expression, scope)))

    def as_long(self, code: Code) -> Code:
        """A number as a LONG that may still leave the 32 bits."""
        if code.kind is Kind.FLOAT:
            return Code(f"to_long({code.text})", Kind.LONG, acts=code.acts)
        return code

    def as_float(self, code: Code, store: bool = False) -> Code:
        """A number as a FLOAT; `store` makes a Python float even of an int."""
        if code.kind is Kind.FLOAT:
            return code
        code = self.fitted(code)
        if self._single and max(abs(code.low), abs(code.high)) > 1 << 24:
            return Code(f"single({code.text})", Kind.FLOAT, acts=code.acts)
        text = f"float({code.text})" if store else code.text
        return Code(text, Kind.FLOAT, acts=code.acts)

    def fitted(self, code: Code) -> Code:
        """The same LONG within 32 bits."""
        if code.kind is not Kind.LONG or code.fits:
            return code
        text = f"(({code.text} + 2147483648 & 4294967295) - 2147483648)"
        return Code(text, Kind.LONG, acts=code.acts)

    def condition(self, expression: tree.Expression, scope: Scope) -> str:
        """A condition."""
        code = self.write(expression, scope)
        if code.kind is not Kind.BOOL:
            raise self.refuse("a condition must compare something, for instance with <> 0")
        return code.text

    def value(self, expression: tree.Expression, scope: Scope) -> Code:
        """A number."""
        code = self.write(expression, scope)
        if code.kind is Kind.BOOL:
            raise self.refuse("a comparison is not a number; use IF")
        return code

    # --- one method for every node ------------------------------------------------------

    def write(self, expression: tree.Expression, scope: Scope) -> Code:
        """Any expression."""
        if isinstance(expression, tree.Number):
            return self._number(expression.value)
        if isinstance(expression, tree.Name):
            return self._name(expression.name, scope)
        if isinstance(expression, tree.Element):
            return self.element(expression, scope)
        if isinstance(expression, tree.Unary):
            return self._unary(expression, scope)
        if isinstance(expression, tree.Binary):
            return self._binary(expression, scope)
        if isinstance(expression, tree.Invoke):
            return self._invoke(expression, scope)
        raise self.refuse(f"{expression.name}[] is a whole array; use an element")

    def _number(self, value: int | float) -> Code:
        if isinstance(value, float):
            return Code(repr(single(value) if self._single else value), Kind.FLOAT)
        return Code(f"({value})" if value < 0 else str(value), Kind.LONG, value, value)

    def _name(self, name: str, scope: Scope) -> Code:
        text, kind = self.variable(name, scope)
        if kind is None:
            meaning = scope.resolve(name)
            assert isinstance(meaning, tuple)
            argument, outer = meaning
            assert isinstance(outer, Scope) and not isinstance(argument, str)
            return self.write(argument, outer)
        if text in self._shapes:
            self.cost += self._costs.memory
            return Code(f"pop({text})", kind, acts=True)
        return Code(text, kind)

    def variable(self, name: str, scope: Scope) -> tuple[str, Kind | None]:
        """Python name and kind of a scalar or FIFO; no kind for a macro's parameter.

        Raises:
            AdbasicError: there is no such variable.
        """
        meaning = scope.resolve(name)
        if isinstance(meaning, tuple) and isinstance(meaning[1], Scope):
            return "", None
        if isinstance(meaning, str):
            shape = self._shapes[meaning]
            if not shape.fifo:
                raise self.refuse(f"{name} is an array; use an element of it")
            self.used.add(meaning)
            return meaning, shape.kind
        if isinstance(meaning, tuple):
            self.cost += self._costs.operation
            python, kind = meaning
            assert isinstance(python, str) and isinstance(kind, Kind)
            return python, kind
        if known := _GLOBAL.match(name):
            if not 1 <= int(known[2]) <= MAX_PAR:
                raise self.refuse(f"{name} does not exist; there are 1 to {MAX_PAR}")
            self.cost += self._costs.memory
            return f"{known[1]}par[{int(known[2])}]", Kind.FLOAT if known[1] else Kind.LONG
        if name in ("processdelay", "globaldelay"):
            return "delay", Kind.LONG
        raise self.refuse(f"{name} is not declared; add DIM {name} AS LONG or AS FLOAT")

    def array(self, name: str, scope: Scope) -> str:
        """Python name of an array, also of one passed to a macro.

        Raises:
            AdbasicError: there is no such array.
        """
        meaning = scope.resolve(name)
        if isinstance(meaning, tuple) and isinstance(meaning[1], Scope):
            argument = meaning[0]
            if isinstance(argument, tree.ArrayName):
                return self.array(argument.name, meaning[1])
        if not isinstance(meaning, str):
            raise self.refuse(f"{name} is not an array; declare it with DIM {name}[length]")
        self.used.add(meaning)
        return meaning

    def element(self, expression: tree.Element, scope: Scope) -> Code:
        """An element; its text can also be assigned to."""
        python = self.array(expression.name, scope)
        shape = self._shapes[python]
        dimensions = 1 if shape.columns is None else 2
        if shape.fifo or len(expression.indices) != dimensions:
            what = "a FIFO" if shape.fifo else f"an array with {dimensions} dimension(s)"
            raise self.refuse(f"{expression.name} is {what}")
        if shape.kind is Kind.STRING:
            raise self.refuse(f"{expression.name} is a STRING; only the host can use it here")
        self.cost += self._costs.memory
        indices = [self.long(index, scope) for index in expression.indices]
        acts = any(index.acts for index in indices)
        if shape.columns is not None:
            self.cost += 2 * self._costs.operation
            text = f"flat({indices[0].text}, {indices[1].text}, {shape.columns})"
            return Code(f"{python}[{text}]", shape.kind, acts=acts)
        (index,) = indices
        if index.low >= 1:
            text = index.text
        elif re.fullmatch(r"\w+", index.text):
            text = f"{index.text} if {index.text} > 0 else below({index.text})"
        else:
            text = f"i if (i := {index.text}) > 0 else below(i)"
        return Code(f"{python}[{text}]", shape.kind, acts=acts)

    def _unary(self, expression: tree.Unary, scope: Scope) -> Code:
        operand = self.write(expression.operand, scope)
        self.cost += self._costs.operation
        if expression.operator == "not":
            if operand.kind is Kind.BOOL:
                return Code(f"(not {operand.text})", Kind.BOOL, acts=operand.acts)
            code = self.fitted(self.as_long(operand))
            return Code(f"(~{code.text})", Kind.LONG, ~code.high, ~code.low, code.acts)
        if operand.kind is Kind.BOOL:
            raise self.refuse(f"{expression.operator} needs a number")
        if expression.operator == "+":
            return operand
        if operand.kind is Kind.FLOAT:
            return Code(f"(-{operand.text})", Kind.FLOAT, acts=operand.acts)
        if operand.low == operand.high:
            return self._number(-operand.low)
        return self._ranged(f"(-{operand.text})", (-operand.high, -operand.low), operand.acts)

    def _binary(self, expression: tree.Binary, scope: Scope) -> Code:
        operator = expression.operator
        left = self.write(expression.left, scope)
        right = self.write(expression.right, scope)
        acts = left.acts or right.acts
        self.cost += self._costs.division if operator in ("/", "^") else self._costs.operation
        if Kind.BOOL in (left.kind, right.kind):
            return self._logic(operator, left, right)
        if operator in _COMPARISONS:
            left, right = self._alike(left, right)
            return Code(
                f"({left.text} {_COMPARISONS[operator]} {right.text})", Kind.BOOL, acts=acts
            )
        if operator in _BITS:
            return self._bits(operator, left, right)
        if Kind.FLOAT in (left.kind, right.kind):
            return self._float(operator, self.as_float(left), self.as_float(right), acts)
        if operator in "+-*":
            return self._ring(operator, left, right)
        left, right = self.fitted(left), self.fitted(right)
        if operator == "^":
            if left.low == left.high == 2 and right.low >= 0 and right.high <= 31:
                if right.low == right.high:
                    return self._number(wrap(1 << right.low))
                return Code(f"wrap(1 << {right.text})", Kind.LONG, acts=acts)
            return Code(f"power_long({left.text}, {right.text})", Kind.LONG, acts=acts)
        if self._model.semantics.long_division == "float":
            return self._float("/", self.as_float(left), self.as_float(right), acts)
        return Code(f"divide_long({left.text}, {right.text})", Kind.LONG, acts=acts)

    def _logic(self, operator: str, left: Code, right: Code) -> Code:
        if left.kind is not right.kind or operator not in _BITS:
            raise self.refuse(f"{operator.upper()} cannot mix a comparison and a number")
        acts = left.acts or right.acts
        # Both sides are evaluated if the second does something, as no document says otherwise.
        word = _BITS[operator] if right.acts or operator == "xor" else _LOGIC[operator]
        return Code(f"({left.text} {word} {right.text})", Kind.BOOL, acts=acts)

    def _alike(self, left: Code, right: Code) -> tuple[Code, Code]:
        if Kind.FLOAT in (left.kind, right.kind):
            return self.as_float(left), self.as_float(right)
        return self.fitted(left), self.fitted(right)

    def _bits(self, operator: str, left: Code, right: Code) -> Code:
        left, right = self.as_long(left), self.as_long(right)
        acts = left.acts or right.acts
        text = f"({left.text} {_BITS[operator]} {right.text})"
        # A mask without sign bounds the result, whatever the other side is.
        masks = [code.high for code in (left, right) if code.low >= 0]
        if operator == "and" and masks:
            return Code(text, Kind.LONG, 0, min(masks), acts)
        left, right = self.fitted(left), self.fitted(right)
        text = f"({left.text} {_BITS[operator]} {right.text})"
        return Code(text, Kind.LONG, acts=acts)

    def _ring(self, operator: str, left: Code, right: Code) -> Code:
        corners = {
            "+": (left.low + right.low, left.high + right.high),
            "-": (left.low - right.high, left.high - right.low),
        }.get(operator) or _extremes(
            [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
        )
        if corners[0] == corners[1] and not (left.acts or right.acts):
            return self._number(wrap(corners[0]))
        text = f"({left.text} {operator} {right.text})"
        return self._ranged(text, corners, left.acts or right.acts)

    def _ranged(self, text: str, bounds: tuple[int, int], acts: bool) -> Code:
        code = Code(text, Kind.LONG, *bounds, acts)
        # Chains of products would otherwise grow without bound.
        return code if bounds[1] - bounds[0] < 1 << 62 else self.fitted(code)

    def _float(self, operator: str, left: Code, right: Code, acts: bool) -> Code:
        if operator == "/":
            text = f"divide_float({left.text}, {right.text})"
        elif operator == "^":
            text = f"power_float({left.text}, {right.text})"
        else:
            text = f"({left.text} {operator} {right.text})"
        return Code(f"single({text})" if self._single else text, Kind.FLOAT, acts=acts)

    # --- calls --------------------------------------------------------------------------

    def _invoke(self, expression: tree.Invoke, scope: Scope) -> Code:
        name, arguments = expression.name, expression.arguments
        if name in INSTRUCTIONS:
            if not INSTRUCTIONS[name].returns:
                raise self.refuse(f"{name.upper()} has no value; call it as a statement")
            return Code(self.instruction(name, arguments, scope), Kind.LONG, acts=True)
        if name not in BUILT_IN:
            return self._inline(expression, scope)
        if name == "read_timer":
            self._expect(name, arguments, 0)
            self.timed = True
            return self.fitted(Code("cycle", Kind.LONG, 0, 1 << 62))
        if name in _FIFO_QUERIES:
            return Code(f"{_FIFO_QUERIES[name]}({self.fifo(name, arguments, scope)})", Kind.LONG)
        self._expect(name, arguments, 1 if name == "abs" or name in _MATHEMATICS else 2)
        codes = [self.value(argument, scope) for argument in arguments]
        acts = any(code.acts for code in codes)
        if name in _MATHEMATICS:
            self.cost += self._costs.function
            text = f"{name}({self.as_float(codes[0]).text})"
            return Code(f"single({text})" if self._single else text, Kind.FLOAT, acts=acts)
        self.cost += self._costs.operation
        if name == "abs":
            code = self.fitted(codes[0])
            return Code(f"abs({code.text})", code.kind, 0, -LONG_MIN, acts)
        if name in _EXTREMES:
            function, kind = _EXTREMES[name]
            convert = self.as_float if kind is Kind.FLOAT else self._fitted_long
            texts = ", ".join(convert(code).text for code in codes)
            return Code(f"{function}({texts})", kind, acts=acts)
        left, right = (self._fitted_long(code) for code in codes)
        if name == "mod":
            self.cost += self._costs.division
            return Code(f"modulo({left.text}, {right.text})", Kind.LONG, acts=acts)
        if right.low == right.high and 0 <= right.low <= 31:
            return self._shifted(name, left, right.low)
        return Code(f"{name}({left.text}, {right.text})", Kind.LONG, acts=acts)

    def _shifted(self, name: str, code: Code, bits: int) -> Code:
        """Shifts by a known number of bits, which are nearly all, without a call."""
        if name == "shift_left":
            bounds = code.low << bits, code.high << bits
            return self._ranged(f"({code.text} << {bits})", bounds, code.acts)
        if code.low < 0:
            text, low, high = f"({code.text} & 4294967295)", 0, 0xFFFF_FFFF
        else:
            text, low, high = code.text, code.low, code.high
        return Code(f"({text} >> {bits})", Kind.LONG, low >> bits, high >> bits, code.acts)

    def _fitted_long(self, code: Code) -> Code:
        return self.fitted(self.as_long(code))

    def instruction(self, name: str, arguments: Sequence[tree.Expression], scope: Scope) -> str:
        """A call of an instruction to a module."""
        self._expect(name, arguments, INSTRUCTIONS[name].arguments)
        self.timed = True
        self.cost += self._costs.instruction
        self.used.add(name)
        texts = [self.long(argument, scope).text for argument in arguments]
        return f"{name}({', '.join(['cycle', *texts])})"

    def fifo(self, name: str, arguments: Sequence[tree.Expression], scope: Scope) -> str:
        """The FIFO whose number an instruction is given."""
        self._expect(name, arguments, 1)
        self.cost += self._costs.memory
        number = arguments[0]
        if not isinstance(number, tree.Number) or not isinstance(number.value, int):
            raise self.refuse(f"{name.upper()} needs the number of a FIFO as a constant")
        python = self.array(f"data_{number.value}", scope)
        if not self._shapes[python].fifo:
            raise self.refuse(f"DATA_{number.value} is not a FIFO")
        return python

    def _expect(self, name: str, arguments: Sequence[tree.Expression], count: int) -> None:
        if len(arguments) != count:
            raise self.refuse(f"{name.upper()} takes {count} argument(s), not {len(arguments)}")


def _extremes(values: list[int]) -> tuple[int, int]:
    return min(values), max(values)
