"""The NetQASM SDK's connection, with our QNPU behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from netqasm.lang.encoding import RegisterName
from netqasm.lang.operand import Register
from netqasm.sdk.build_types import GenericHardwareConfig, HardwareConfig, NVHardwareConfig
from netqasm.sdk.builder import LabelManager
from netqasm.sdk.connection import BaseNetQASMConnection
from netqasm.sdk.shared_memory import SharedMemory

from qnodeos.api.host import HostReply, RegisterResult
from qnodeos.api.netqasm import REGISTERS, Flavour
from qnodeos.cnpu.building import (
    exact_rotations,
    expect_pairs,
    is_preparing,
    release_conditions,
    speed_up,
)
from qnodeos.cnpu.host import NetworkDirectory, ProgramHost, find_host
from qnodeos.cnpu.nv_compiler import NVCompiler
from qnodeos.cnpu.prepared import PreparedSubroutine, SubroutineCache
from qnodeos.cnpu.ranges import check_connection, check_subroutine
from qnodeos.errors import ConnectionLostError, ProgramStoppedError, SubroutineFailedError

_REGISTERS: Final = tuple(
    Register(RegisterName(number & 3), number >> 2) for number in range(REGISTERS)
)
"""The SDK's register objects by encoded number."""
_SUBROUTINE_TYPE: Final = b"\x02"


class QNodeOSConnection(BaseNetQASMConnection):  # type: ignore[misc]
    """A program's connection to the QNPU of its node.

    Takes the arguments of the SDK's `BaseNetQASMConnection`. A connection is one client of the
    QNPU, so application ids are its own and never clash with another program's. ``max_qubits``
    is a cap, not a reservation: a device may have fewer, and a program hears of it when one is
    missing.

    The compiler and the hardware configuration default to those of the node's flavour: on NV,
    to `NVCompiler`, and, for more than one qubit, to a configuration that treats all qubits
    alike, because the QNPU itself makes room on the electron. Who passes a compiler of their
    own gets it, and the SDK's NV configuration with it.

    Further arguments:
        host: the CNPU; that of the running program if not given.
        prepared: whether blocks that repeat are prepared (`qnodeos.cnpu.prepared`); if not
            given, what the environment variable QNODEOS_PREPARED says, and by default yes.
        priority: of the program at its QNPU; higher runs first.
    """

    def __init__(
        self,
        app_name: str,
        node_name: str | None = None,
        app_id: int | None = None,
        max_qubits: int = 5,
        hardware_config: HardwareConfig | None = None,
        compiler: Any = None,
        *,
        host: ProgramHost | None = None,
        prepared: bool | None = None,
        priority: int = 0,
        **options: Any,
    ) -> None:
        sockets = options.get("epr_sockets") or ()
        check_connection(0 if app_id is None else app_id, max_qubits, sockets)
        self._host = host if host is not None else find_host()
        self._memory = SharedMemory()
        self._unanswered: list[tuple[int, Callable[[], None] | None]] = []
        self._priority = priority
        self._client = self._host.open_client()
        self._is_open = True
        if self._host.flavour is Flavour.NV:
            if hardware_config is None and (compiler is not None or max_qubits == 1):
                hardware_config = NVHardwareConfig(max_qubits)
            compiler = compiler or NVCompiler
        super().__init__(
            app_name=app_name,
            node_name=node_name,
            app_id=app_id,
            max_qubits=max_qubits,
            hardware_config=hardware_config or GenericHardwareConfig(max_qubits),
            compiler=compiler,
            **options,
        )
        builder = self._builder
        builder._build_cmds_single_qubit_rotation = exact_rotations(
            builder._build_cmds_single_qubit_rotation, self._host.capabilities.angle_halvings
        )
        expect_pairs(builder)
        release_conditions(builder)
        self._cache: SubroutineCache | None = None
        if prepared if prepared is not None else is_preparing():
            self._cache = SubroutineCache(
                builder.subrt_compile_subroutine, self._to_bytes, compiler
            )
            speed_up(builder)

    # --- what the SDK asks of a backend -----------------------------------------------

    def _get_network_info(self) -> NetworkDirectory:
        return self._host.directory

    def _get_new_app_id(self, app_id: int | None) -> int:
        return 0 if app_id is None else app_id

    def _pop_app_id(self) -> None:
        """Nothing to give back: application ids are scoped by connection."""

    @property
    def owner(self) -> tuple[int, int]:
        """Client and application id, by which the QNPU knows this program."""
        return self._client, self._app_id

    @property
    def shared_memory(self) -> SharedMemory:
        """What the QNPU has returned to this program."""
        return self._memory

    def _init_new_app(self, max_qubits: int) -> None:
        if self._priority == 0:
            super()._init_new_app(max_qubits)
            return
        request = self._host.register(self._client, self._app_id, max_qubits, self._priority)
        self._take(self._host.await_reply(request))

    def _commit_serialized_message(
        self, raw_msg: bytes, block: bool = True, callback: Callable[[], None] | None = None
    ) -> None:
        self._finish(self._host.submit(self._client, raw_msg), block, callback)

    def _finish(self, request: int, block: bool, callback: Callable[[], None] | None) -> None:
        """Wait for the reply to what was just sent, or leave that for later."""
        if not block:
            self._unanswered.append((request, callback))
            return
        if self._unanswered:
            self.block()
        self._take(self._host.await_reply(request))
        if callback is not None:
            callback()

    def block(self) -> None:
        """Wait for everything that was flushed without blocking."""
        while self._unanswered:
            self.block_oldest()

    def block_oldest(self) -> None:
        """Wait for the first of what was flushed without blocking, if there is any.

        The SDK itself can wait for everything only; a program that keeps some subroutines
        queued at the QNPU needs this.
        """
        if not self._unanswered:
            return
        request, callback = self._unanswered.pop(0)
        self._take(self._host.await_reply(request))
        if callback is not None:
            callback()

    def _take(self, reply: HostReply) -> None:
        error = reply.error
        if error is not None:
            raise SubroutineFailedError(error.kind, error.text, error.subroutine, error.pc)
        for result in reply.results:
            if isinstance(result, RegisterResult):
                self._memory.set_register(_REGISTERS[result.register], result.value)
            else:
                self._memory.init_new_array(result.address, new_array=list(result.values))

    # --- what the SDK does at length, done shortly ------------------------------------

    def commit_protosubroutine(
        self,
        protosubroutine: Any,
        block: bool = True,
        callback: Callable[[], None] | None = None,
    ) -> None:
        """Assemble and send, without the log messages the SDK formats for nobody."""
        if self._cache is not None:
            raw = self._cache.assemble(protosubroutine)
        else:
            raw = self._to_bytes(self._builder.subrt_compile_subroutine(protosubroutine))
        request = self._host.submit(self._client, _SUBROUTINE_TYPE + raw)
        # What follows can be done while the QNPU works.
        self._reset_builder()
        if self._cache is not None:
            self._cache.prepare_new()
        self._finish(request, block, callback)

    def compile(self) -> Any:
        """Compile what was built into a subroutine, to instantiate and commit it later.

        Other than the SDK's, one whose templates are numerators of angles in units of pi/16
        can be instantiated again and again, and that is quick.

        Returns:
            The subroutine; None if nothing was built.
        """
        block = self._builder.subrt_pop_pending_subroutine()
        if block is None:
            return None
        if self._cache is not None:
            subroutine = self._cache.compile(block)
        else:
            subroutine = self._builder.subrt_compile_subroutine(block)
        self._reset_builder()
        return subroutine

    def commit_subroutine(
        self, subroutine: Any, block: bool = True, callback: Callable[[], None] | None = None
    ) -> None:
        """Send a compiled subroutine.

        Raises:
            CallerError: a number of its does not fit into its bytes.
        """
        if not isinstance(subroutine, PreparedSubroutine):
            check_subroutine(subroutine)
        self._commit_serialized_message(_SUBROUTINE_TYPE + bytes(subroutine), block, callback)

    def _to_bytes(self, subroutine: Any) -> bytes:
        subroutine.instantiate(self.app_id)
        check_subroutine(subroutine)
        return bytes(subroutine)

    def _reset_builder(self) -> None:
        """Forget what belongs to the last block.

        The table of branch labels, which the SDK scans linearly and never empties, is
        renewed: labels need only be unique within a subroutine. So are the registers in use,
        for none carries a value from one subroutine to the next. Of the list of all addresses
        that arrays have ever had, the SDK looks at the last.
        """
        builder, memory = self._builder, self._builder._mem_mgr
        builder._label_mgr = LabelManager()
        memory._active_registers.clear()
        del memory._used_array_addresses[:-1]
        builder._reset()

    def _commit_message(
        self, msg: Any, block: bool = True, callback: Callable[[], None] | None = None
    ) -> None:
        self._commit_serialized_message(bytes(msg), block, callback)

    # --- the end ----------------------------------------------------------------------

    def _signal_stop(self, clear_app: bool = True, stop_backend: bool = True) -> None:
        """Deregister the program; the QNPU itself, which others share, goes on."""
        super()._signal_stop(clear_app=clear_app, stop_backend=False)
        if clear_app:
            self._disconnect()

    def close(
        self, clear_app: bool = True, stop_backend: bool = False, exception: bool = False
    ) -> None:
        """End the connection; the program's qubits are freed even if its last flush fails."""
        if not self._is_open:
            return
        try:
            if exception:
                # What became of earlier flushes must not hide the program's exception.
                self._unanswered.clear()
            else:
                self.flush()
                self.block()
            super().close(clear_app, stop_backend, exception=True)
        except BaseException as error:
            self._disconnect()
            # Nor must what the QNPU says of its end, or that nobody is left to say goodbye to.
            hidden = ConnectionLostError | ProgramStoppedError | SubroutineFailedError
            if not (exception and isinstance(error, hidden)):
                raise

    def _disconnect(self) -> None:
        if self._is_open:
            self._is_open = False
            self._host.close_client(self._client)
