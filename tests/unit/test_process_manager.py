"""The process manager, against one that looks through everything it has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.errors import LimitError, QNodeOSError, UnknownProcessError
from qnodeos.limits import Limits
from qnodeos.qnpu.process_manager import Owner, ProcessManager

LIMITS = Limits(processes=5, programs_per_client=2)
CLIENTS, APPS = st.integers(1, 4), st.integers(0, 3)


class Plain:
    """The owners of the processes alive, and the epitaphs, both by age."""

    def __init__(self) -> None:
        self.alive: list[Owner] = []
        self.epitaphs: dict[Owner, str] = {}

    def register(self, owner: Owner) -> type[QNodeOSError] | None:
        if owner in self.alive:
            return UnknownProcessError
        mine = [each for each in self.alive if each[0] == owner[0]]
        if len(self.alive) >= LIMITS.processes or len(mine) >= LIMITS.programs_per_client:
            return LimitError
        self.alive.append(owner)
        self.epitaphs.pop(owner, None)
        return None

    def abort(self, owner: Owner, why: str) -> None:
        self.alive.remove(owner)
        mine = [each for each in self.epitaphs if each[0] == owner[0]]
        if len(mine) >= LIMITS.programs_per_client:
            del self.epitaphs[mine[0]]
        elif len(self.epitaphs) >= LIMITS.processes * LIMITS.programs_per_client:
            del self.epitaphs[next(iter(self.epitaphs))]
        self.epitaphs[owner] = f"LimitError: {why}"


def check(manager: ProcessManager, plain: Plain) -> None:
    assert [process.owner for process in manager.processes.values()] == plain.alive
    for client in range(1, 5):
        mine = [owner for owner in plain.alive if owner[0] == client]
        assert [process.owner for process in manager.of_client(client)] == mine
    for owner in [(client, app) for client in range(1, 5) for app in range(4)]:
        if owner in plain.alive:
            assert manager.find(owner).owner == owner
            continue
        with pytest.raises(UnknownProcessError) as caught:
            manager.find(owner)
        epitaph = plain.epitaphs.get(owner)
        assert str(caught.value) == (
            f"application {owner[1]} is not registered on this connection"
            if epitaph is None
            else f"the process of application {owner[1]} has ended: {epitaph}"
        )


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(("register", "fail at once")), CLIENTS, APPS),
            st.tuples(st.sampled_from(("abort", "stop")), st.integers(0, 9)),
            st.tuples(st.just("clear"), CLIENTS, APPS),
            st.tuples(st.just("forget"), CLIENTS),
        ),
        max_size=60,
    )
)
def test_it_finds_what_a_search_would_find(operations):
    manager, plain = ProcessManager(LIMITS), Plain()
    for number, (what, *arguments) in enumerate(operations):
        if what in ("register", "fail at once"):
            owner = arguments[0], arguments[1]
            error = plain.register(owner)
            if error is None:
                process = manager.register(owner, 1)
                if what == "fail at once":
                    manager.write_epitaph(process, LimitError(f"reason {number}"))
                    plain.abort(owner, f"reason {number}")
                    manager.remove(process)
            else:
                with pytest.raises(error):
                    manager.register(owner, 1)
        elif what == "clear":
            owner = arguments[0], arguments[1]
            assert manager.clear_epitaph(owner) is (plain.epitaphs.pop(owner, None) is not None)
        elif what == "forget":
            manager.forget_client(arguments[0])
            plain.epitaphs = {o: t for o, t in plain.epitaphs.items() if o[0] != arguments[0]}
        elif plain.alive:
            owner = plain.alive[arguments[0] % len(plain.alive)]
            process = manager.find(owner)
            if what == "abort":
                manager.write_epitaph(process, LimitError(f"reason {number}"))
                plain.abort(owner, f"reason {number}")
            else:
                plain.alive.remove(owner)
            manager.remove(process)
        check(manager, plain)
    for process in list(manager.processes.values()):
        manager.remove(process)
    for client in range(1, 5):
        manager.forget_client(client)
    assert not any((manager._by_owner, manager._by_client, manager._epitaphs, manager._mourned))


def test_the_oldest_epitaph_of_all_makes_room():
    limits = Limits(processes=1, programs_per_client=2)
    manager = ProcessManager(limits)
    for client in range(3):
        fail(manager, (client, 0))
    assert [manager.clear_epitaph((client, 0)) for client in range(3)] == [False, True, True]


def fail(manager: ProcessManager, owner: Owner) -> None:
    process = manager.register(owner, 1)
    manager.write_epitaph(process, LimitError("x"))
    manager.remove(process)


def test_the_oldest_epitaph_of_a_connection_makes_room():
    manager = ProcessManager(LIMITS)
    for owner in [(2, 0), (1, 0), (1, 1), (1, 2)]:
        fail(manager, owner)
    cleared = [manager.clear_epitaph(owner) for owner in [(2, 0), (1, 0), (1, 1), (1, 2)]]
    assert cleared == [True, False, True, True]


def test_a_program_that_registers_again_has_no_epitaph():
    manager = ProcessManager(LIMITS)
    fail(manager, (1, 0))
    manager.register((1, 0), 1)
    assert not manager.clear_epitaph((1, 0))


def test_a_refused_program_leaves_nothing():
    manager = ProcessManager(Limits(highest_priority=1))
    with pytest.raises(QNodeOSError, match="priority 2"):
        manager.register((1, 0), 1, priority=2)
    assert not manager._by_client


@pytest.mark.parametrize("owes", [True, False])
def test_a_program_that_stops_is_told_why_its_process_had_ended_unless_it_knows(owes):
    manager = ProcessManager(Limits())
    process = manager.register((1, 0), 1)
    if owes:  # the reply to this carries the error
        manager.queue_subroutine(process, 1, 0, b"")
    manager.write_epitaph(process, LimitError("too long"))
    manager.remove(process)
    if owes:
        assert manager.stop_dead((1, 0))
    else:
        with pytest.raises(UnknownProcessError, match="has ended: LimitError: too long"):
            manager.stop_dead((1, 0))
    assert not manager.stop_dead((1, 0))
