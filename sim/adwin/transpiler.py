"""From the syntax tree of an ADbasic program to a Python module.

The module has a function for each of `SECTIONS`. The one for EVENT is a loop over events: it
runs until the horizon it is given, so that nothing is called from outside for every event. The
scalars of the program are its local variables. `cycle` is the time in processor cycles: the
cost of what has run is added to it before anything that depends on the time.

SUBs and FUNCTIONs are macros and are inserted where they are called, with names for arguments;
a FUNCTION within an expression is inserted before the statement, so it runs before the rest of
the expression. The variables of each inserted copy are its own and keep their values (assumed).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sim.adwin import tree
from sim.adwin.errors import AdbasicError, Location
from sim.adwin.expressions import BUILT_IN, Code, ExpressionWriter, Scope
from sim.adwin.frames import Line, SectionFrame
from sim.adwin.hardware import INSTRUCTIONS
from sim.adwin.options import LONG_MAX, LONG_MIN, ProcessorModel
from sim.adwin.parser import parse_text
from sim.adwin.preprocessor import preprocess
from sim.adwin.program import SECTIONS, ArrayShape, Program
from sim.adwin.tree import Kind

MAX_DATA: Final = 200
MAX_KNOWN: Final = 32
"""Bound on the programs that are remembered."""
MAX_PROCESSES: Final = 10
MAX_ARRAY_LENGTH: Final = 10_000_000
MAX_MACRO_DEPTH: Final = 16
MAX_CASES: Final = 500
MAX_PYTHON_LINES: Final = 100_000
MAX_LOOP_DEPTH: Final = 15
"""Bound on loops within loops; Python allows 20 nested blocks."""
MAX_BLOCK_DEPTH: Final = 80
"""Bound on blocks within blocks; Python allows 100 levels of indentation."""
_INIT: Final = ("lowinit", "init")
_FINISH: Final = ("finish", "lowfinish")


def transpile_file(path: Path, model: ProcessorModel) -> Program:
    """Read an ADbasic source and generate its program.

    Args:
        path: the ``.bas`` file.
        model: the processor it is to run on.

    Raises:
        AdbasicError: the source is wrong or outside the subset; names file and line.
    """
    # A laboratory is set up again and again with the same program.
    text = preprocess(path, model.name)
    key = (
        str(path),
        text.text,
        text.locations,
        tuple(text.header.items()),
        model.model_dump_json(),
    )
    program = _known.get(key)
    if program is None:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        program = _known[key] = transpile(parse_text(text, path), model)
    return program


_known: dict[tuple[object, ...], Program] = {}
"""Programs transpiled by this process, by everything they depend on."""


def transpile(source: tree.Source, model: ProcessorModel) -> Program:
    """Generate the program of a parsed source; see `transpile_file`."""
    header = _Header(source)
    writer = _Writer(source, model)
    bodies = {
        "initialise": [source.sections.get(name, ()) for name in _INIT],
        "event": [source.sections.get("event", ())],
        "finish": [source.sections.get(name, ()) for name in _FINISH],
    }
    if not any(source.sections.values()):
        raise AdbasicError(f"{source.file} has no statements in any section")
    clock = model.external_clock_cycles
    clocked = header.external and clock is not None
    external = header.external and not clocked
    delay = header.number("initial_processdelay", 1, LONG_MAX)
    for name in SECTIONS:
        writer.section(name, bodies[name], external)
    python, lines = writer.module()
    return Program(
        file=source.file,
        number=header.number("process_number", 1, MAX_PROCESSES),
        initial_processdelay=clock if clocked and clock is not None else delay,
        external=external,
        clocked=clocked,
        low_priority=header.word("priority", "high", ("high", "low")) == "low",
        variables=writer.variables,
        arrays=writer.shapes,
        python=python,
        lines=lines,
    )


class _Header:
    """The settings in the comments at the top of a source."""

    def __init__(self, source: tree.Source) -> None:
        self._source = source
        self.external = self.word("eventsource", "timer", ("timer", "external")) == "external"

    def number(self, name: str, least: int, most: int) -> int:
        text = self._source.header.get(name, "")
        if not text.isdecimal() or not least <= int(text) <= most:
            raise AdbasicError(
                f"{self._source.file}: the header's {name} must be {least} to {most}, not "
                f"{text or 'absent'}; the vendor's editor writes it"
            )
        return int(text)

    def word(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        text = self._source.header.get(name, default).lower()
        if text not in allowed:
            raise AdbasicError(
                f"{self._source.file}: the header's {name} is {text!r}; this subset has "
                f"{' and '.join(allowed)}"
            )
        return text


class _Writer:
    """Writes the generated module.

    Attributes:
        shapes: arrays by name; those of DATA without the `a_` of their Python name.
        variables: initial value of every scalar, by Python name.
    """

    def __init__(self, source: tree.Source, model: ProcessorModel) -> None:
        self.variables: dict[str, int | float] = {}
        self._source = source
        self._model = model
        self._costs = model.costs
        self._python_shapes: dict[str, ArrayShape] = {}
        self._expressions = ExpressionWriter(model, self._python_shapes, self._inline_function)
        self._scope = Scope()
        self._copies = 0
        self._depth = 0
        self._loops = 0
        self._exits = False
        self._has_loops = False
        self._body: list[Line] = []
        self._sections: list[SectionFrame] = []
        for declaration in source.declarations:
            self._declare(declaration, self._scope, "")
        for macro in source.macros.values():
            if macro.name in INSTRUCTIONS or macro.name in BUILT_IN or macro.name == "cpu_sleep":
                raise AdbasicError(f"{macro.name} is built in; rename it", macro.location)

    @property
    def shapes(self) -> dict[str, ArrayShape]:
        return {name.removeprefix("a_"): shape for name, shape in self._python_shapes.items()}

    # --- declarations -------------------------------------------------------------------

    def _declare(self, item: tree.Declaration, scope: Scope, prefix: str) -> None:
        self._expressions.location = item.location
        name = item.name
        if name in scope.scalars or name in scope.arrays or name in scope.parameters:
            raise AdbasicError(f"{name} is declared twice", item.location)
        if item.sizes:
            scope.arrays[name] = f"a_{prefix}{name}"
            self._python_shapes[scope.arrays[name]] = self._shape(item)
        elif item.fifo or item.kind is Kind.STRING:
            raise AdbasicError(f"{name} needs a length: DIM {name}[length]", item.location)
        else:
            scope.scalars[name] = self._new_variable(f"v_{prefix}{name}", item.kind)

    def _shape(self, item: tree.Declaration) -> ArrayShape:
        sizes = []
        for size in item.sizes:
            code = self._expressions.long(size, Scope())
            if code.low != code.high or not 1 <= code.low <= MAX_ARRAY_LENGTH:
                raise AdbasicError(
                    f"the length of {item.name} must be a constant of 1 to {MAX_ARRAY_LENGTH}",
                    item.location,
                )
            sizes.append(code.low)
        word, _, number = item.name.partition("_")
        is_data = word == "data" and number.isdecimal()
        if is_data and not 1 <= int(number) <= MAX_DATA:
            raise AdbasicError(f"{item.name}: DATA goes from 1 to {MAX_DATA}", item.location)
        if not is_data and (item.fifo or item.kind is Kind.STRING):
            raise AdbasicError("only DATA arrays can be FIFO or STRING here", item.location)
        columns = sizes[1] if len(sizes) == 2 else None
        if item.fifo and columns:
            raise AdbasicError("a FIFO has one dimension", item.location)
        length = sizes[0] * (columns or 1)
        if length > MAX_ARRAY_LENGTH:
            raise AdbasicError(
                f"{item.name} has {length} elements; {MAX_ARRAY_LENGTH} are possible", item.location
            )
        return ArrayShape(item.kind, length, columns, item.fifo, item.place)

    def _new_variable(self, python: str, kind: Kind) -> tuple[str, Kind]:
        self.variables[python] = 0.0 if kind is Kind.FLOAT else 0
        return python, kind

    # --- lines --------------------------------------------------------------------------

    def _emit(self, text: str) -> None:
        if len(self._body) == MAX_PYTHON_LINES:
            raise self._expressions.refuse(
                f"the macros grow to more than {MAX_PYTHON_LINES} lines; call fewer of them"
            )
        self._body.append(("    " * self._depth + text, self._expressions.location))

    def _spend(self) -> None:
        """Add what has been written so far to the time."""
        if self._expressions.cost:
            self._emit(f"cycle += {self._expressions.cost}")
        self._expressions.cost = 0
        self._expressions.timed = False

    def _spend_if_timed(self) -> None:
        if self._expressions.timed:
            self._spend()

    @contextmanager
    def _indented(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > MAX_BLOCK_DEPTH:
            raise self._expressions.refuse(
                f"with its macros inserted, blocks are more than {MAX_BLOCK_DEPTH} deep"
            )
        length = len(self._body)
        yield
        if len(self._body) == length:
            self._emit("pass")
        self._depth -= 1

    def _branch(self, block: tree.Block, scope: Scope, cost: int) -> None:
        """A block that runs in some cases only, after conditions that cost something."""
        with self._indented():
            self._expressions.cost = cost
            self._block(block, scope)
            self._spend()

    # --- sections -----------------------------------------------------------------------

    def section(self, name: str, blocks: list[tree.Block], external: bool) -> None:
        """Write one section's function."""
        self._body, self._exits, self._has_loops = [], False, False
        self._expressions.used = set()
        self._depth = 4 if name == "event" else 3
        for block in blocks:
            self._block(block, self._scope)
        self._spend()
        used = self._expressions.used
        self._sections.append(
            SectionFrame(
                name=name,
                body=self._body,
                exits=self._exits,
                loops=self._has_loops,
                external=external,
                arrays=tuple(sorted(used & self._python_shapes.keys())),
                instructions=tuple(sorted(used & INSTRUCTIONS.keys())),
            )
        )

    def module(self) -> tuple[str, tuple[Location | None, ...]]:
        """The text of the module, and where each of its lines comes from."""
        lines: list[Line] = []
        for section in self._sections:
            lines += [*section.lines(self._model, list(self.variables)), ("", None), ("", None)]
        text = "".join(f"{line}\n" for line, _ in lines)
        return text, tuple(location for _, location in lines)

    # --- statements ---------------------------------------------------------------------

    def _block(self, block: tree.Block, scope: Scope) -> None:
        for statement in block:
            self._expressions.location = statement.location
            self._statement(statement, scope)

    def _statement(self, statement: tree.Statement, scope: Scope) -> None:
        if isinstance(statement, tree.Assign):
            self._assign(statement.target, self._value(statement.value, scope), scope)
        elif isinstance(statement, tree.Step):
            self._step(statement, scope)
        elif isinstance(statement, tree.Call):
            self._call(statement, scope)
        elif isinstance(statement, tree.If):
            self._if(statement, scope)
        elif isinstance(statement, tree.Select):
            self._select(statement, scope)
        elif isinstance(statement, tree.For):
            self._for(statement, scope)
        elif isinstance(statement, tree.Do):
            self._do(statement, scope)
        else:
            self._spend()
            ends = isinstance(statement, tree.End)
            self._exits |= not ends
            self._emit("raise EndProcess" if ends else "raise ExitSection")

    def _value(self, expression: tree.Expression, scope: Scope) -> Code:
        return self._expressions.value(expression, scope)

    def _assign(self, target: tree.Target, code: Code, scope: Scope) -> None:
        """Store a value that has been written already."""
        writer = self._expressions
        if isinstance(target, tree.Element):
            place = writer.element(target, scope)
            stored = self._stored(code, place.kind)
            self._spend_if_timed()
            self._emit(f"{place.text} = {stored}")
            return
        python, kind = writer.variable(target.name, scope)
        if kind is None:
            argument, outer = scope.parameters[target.name]
            if not isinstance(argument, tree.Name | tree.Element):
                raise writer.refuse(f"{target.name} stands for a value here, not for a variable")
            self._assign(argument, code, outer)
            return
        self._spend_if_timed()
        if python in self._python_shapes:
            writer.cost += self._costs.memory
            self._emit(f"{python}.append({self._stored(code, kind)})")
        elif python == "delay":
            self._emit(f"delay = checked_delay({self._stored(code, kind)})")
        elif kind is Kind.LONG and python in self.variables:
            code = writer.as_long(code)
            self._emit(f"{python} = {code.text}")
            if not code.fits:
                # Cheaper than the masks of `fitted`, as it is hardly ever so.
                self._emit(f"if not {LONG_MIN} <= {python} <= {LONG_MAX}:")
                with self._indented():
                    self._emit(f"{python} = wrap({python})")
        else:
            self._emit(f"{python} = {self._stored(code, kind)}")

    def _stored(self, code: Code, kind: Kind) -> str:
        writer = self._expressions
        if kind is Kind.FLOAT:
            return writer.as_float(code, store=True).text
        return writer.fitted(writer.as_long(code)).text

    def _step(self, statement: tree.Step, scope: Scope) -> None:
        code = self._value(tree.Binary("+", statement.target, tree.Number(statement.by)), scope)
        self._assign(statement.target, code, scope)

    def _call(self, statement: tree.Call, scope: Scope) -> None:
        name, arguments, writer = statement.name, statement.arguments, self._expressions
        if name in INSTRUCTIONS:
            text = writer.instruction(name, arguments, scope)
            self._spend()
            self._emit(text)
        elif name in ("cpu_sleep", "fifo_clear"):
            if name == "fifo_clear":
                self._emit(f"{writer.fifo(name, arguments, scope)}.clear()")
                return
            if len(arguments) != 1:
                raise writer.refuse("CPU_SLEEP takes 1 argument, in units of 10 ns")
            code = writer.long(arguments[0], scope)
            self._spend()
            per_10_ns = self._model.clock_hz // 100_000_000
            self._emit(f"cycle += sleep_cycles({code.text}, {per_10_ns})")
        elif name in self._source.macros:
            if self._source.macros[name].kind is not None:
                raise writer.refuse(f"{name} is a FUNCTION; assign its value to something")
            self._inline(self._source.macros[name], arguments, scope)
        else:
            raise writer.refuse(
                f"{name.upper()} is not a SUB of this program nor an instruction of this subset"
            )

    def _if(self, statement: tree.If, scope: Scope) -> None:
        writer = self._expressions
        depth, spent = self._depth, 0
        for number, arm in enumerate(statement.arms):
            writer.location = arm.location
            pending, writer.cost = writer.cost, 0
            length = len(self._body)
            if number:
                # What the condition needs first can only stand in an ELSE of its own.
                self._emit("else:")
                self._depth += 1
                if self._depth > MAX_BLOCK_DEPTH:
                    raise writer.refuse(f"more than {MAX_BLOCK_DEPTH} ELSEIFs that act")
            text = writer.condition(arm.tests[0], scope)
            writer.cost += pending + self._costs.branch
            if number and len(self._body) == length + 1 and not writer.timed:
                del self._body[length:]
                self._depth -= 1
                spent += writer.cost
                self._emit(f"elif {text}:")
            else:
                writer.cost += spent
                self._spend()
                spent = 0
                self._emit(f"if {text}:")
            self._branch(arm.block, scope, spent)
        writer.location = statement.location
        if statement.otherwise or spent:
            self._emit("else:")
            self._branch(statement.otherwise, scope, spent)
        self._depth = depth

    def _select(self, statement: tree.Select, scope: Scope) -> None:
        writer = self._expressions
        if len(statement.arms) > MAX_CASES:
            raise writer.refuse(f"more than {MAX_CASES} CASEs")
        code = writer.long(statement.value, scope)
        writer.cost += self._costs.branch
        self._spend()
        name = self._fixed("case", code).text
        word = "if"
        for arm in statement.arms:
            writer.location = arm.location
            texts = [str(self._constant(value)) for value in arm.tests]
            test = f"== {texts[0]}" if len(texts) == 1 else f"in ({', '.join(texts)})"
            self._emit(f"{word} {name} {test}:")
            self._branch(arm.block, scope, 0)
            word = "elif"
        writer.location = statement.location
        if statement.otherwise:
            self._emit("else:" if statement.arms else "if True:")
            self._branch(statement.otherwise, scope, 0)

    def _constant(self, expression: tree.Expression) -> int:
        code = self._expressions.long(expression, Scope())
        if code.low != code.high:
            raise self._expressions.refuse("a CASE must be a constant")
        return code.low

    def _for(self, statement: tree.For, scope: Scope) -> None:
        writer = self._expressions
        self._assign(statement.target, self._value(statement.first, scope), scope)
        last = self._fixed("last", writer.long(statement.last, scope))
        step = self._fixed("step", writer.long(statement.step, scope))
        self._spend()
        counter = writer.long(statement.target, scope).text
        writer.cost = 0
        test = f"{counter} <= {last.text}" if step.low >= 0 else f"{counter} >= {last.text}"
        if step.low < 0 <= step.high:
            test = f"({counter} <= {last.text} if {step.text} >= 0 else {counter} >= {last.text})"
        self._emit(f"while {test}:")
        with self._loop():
            self._block(statement.body, scope)
            writer.location = statement.location
            present = writer.long(statement.target, scope)
            increment = Code(
                f"({present.text} + {step.text})", Kind.LONG, 2 * LONG_MIN, 2 * LONG_MAX
            )
            self._assign(statement.target, increment, scope)

    def _fixed(self, name: str, code: Code) -> Code:
        """A value that later changes of its variables cannot reach."""
        if code.low == code.high:
            return code
        python = f"{name}_{self._copies}"
        self._copies += 1
        self._emit(f"{python} = {code.text}")
        return Code(python, Kind.LONG, code.low, code.high)

    def _do(self, statement: tree.Do, scope: Scope) -> None:
        writer = self._expressions
        self._spend()
        self._emit("while True:")
        with self._loop():
            self._block(statement.body, scope)
            writer.location = statement.location
            text = writer.condition(statement.until, scope)
            self._spend()
            self._emit(f"if {text}:")
            with self._indented():
                self._emit("break")

    @contextmanager
    def _loop(self) -> Iterator[None]:
        """The body of a loop, with its cost and its bound."""
        writer = self._expressions
        location = writer.location
        self._loops += 1
        if self._loops > MAX_LOOP_DEPTH:
            raise writer.refuse(f"loops are nested more than {MAX_LOOP_DEPTH} deep")
        self._has_loops = True
        with self._indented():
            # At least one cycle, or the bound would never be reached.
            self._emit(f"cycle += {max(1, self._costs.branch)}")
            self._emit("if cycle > deadline:")
            with self._indented():
                self._emit(f"runaway({self._model.max_section_cycles})")
            yield
            writer.location = location
            self._spend()
        self._loops -= 1

    # --- macros -------------------------------------------------------------------------

    def _inline_function(self, call: tree.Invoke, scope: Scope) -> Code:
        macro = self._source.macros.get(call.name)
        if macro is None:
            raise self._expressions.refuse(
                f"{call.name.upper()} is not a FUNCTION of this program nor an instruction of "
                "this subset"
            )
        if macro.kind is None:
            raise self._expressions.refuse(f"{call.name} is a SUB and has no value")
        inner = self._inline(macro, call.arguments, scope)
        python, kind = inner.scalars[macro.name]
        return Code(python, kind)

    def _inline(
        self, macro: tree.Macro, arguments: tuple[tree.Expression, ...], scope: Scope
    ) -> Scope:
        writer = self._expressions
        if macro.name in scope.active:
            raise writer.refuse(f"{macro.name} calls itself; a macro cannot")
        if len(scope.active) == MAX_MACRO_DEPTH:
            raise writer.refuse(f"macros call each other more than {MAX_MACRO_DEPTH} deep")
        if len(arguments) != len(macro.parameters):
            raise writer.refuse(
                f"{macro.name} takes {len(macro.parameters)} argument(s), not {len(arguments)}"
            )
        self._copies += 1
        prefix = f"{macro.name}_{self._copies}_"
        inner = Scope(parent=self._scope, active=(*scope.active, macro.name))
        for parameter, argument in zip(macro.parameters, arguments, strict=True):
            inner.parameters[parameter.name] = self._argument(parameter, argument, scope, prefix)
        if macro.kind is not None:
            inner.scalars[macro.name] = self._new_variable(f"v_{prefix}result", macro.kind)
        call = writer.location
        for declaration in macro.declarations:
            self._declare(declaration, inner, prefix)
        self._block(macro.body, inner)
        writer.location = call
        return inner

    def _argument(
        self, parameter: tree.Parameter, argument: tree.Expression, scope: Scope, prefix: str
    ) -> tuple[tree.Expression, Scope]:
        if parameter.is_array:
            if not isinstance(argument, tree.ArrayName | tree.Name):
                raise self._expressions.refuse(f"{parameter.name}[] needs a whole array")
            return tree.ArrayName(argument.name), scope
        by_name = self._model.semantics.macro_arguments == "by name"
        if by_name or isinstance(argument, tree.Name | tree.Element | tree.Number):
            return argument, scope
        code = self._value(argument, scope)
        inner = Scope()
        inner.scalars[parameter.name] = self._new_variable(f"v_{prefix}{parameter.name}", code.kind)
        self._assign(tree.Name(parameter.name), code, inner)
        return tree.Name(parameter.name), inner
