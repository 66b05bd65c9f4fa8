"""Many programs at once in virtual time: all results come, and reaching a bound names it."""

from __future__ import annotations

from typing import Any

import pytest

from qnodeos.assembly import NetworkConfig, TwoNodeSystem, build_two_nodes, load_profile
from qnodeos.errors import ProgramError, StalledProgramsError
from qnodeos.experiments.programs import dqc_client, dqc_server, lgt
from qnodeos.limits import Limits
from qnodeos.qnpu.scheduler import POLICIES
from sim.network import ProgramSpec

CIRCUITS = 2
REPETITIONS = 1


def client(number: int) -> ProgramSpec:
    inputs = {"alpha_steps": 8, "theta_steps": 4, "circuits": CIRCUITS, "socket_id": number}
    return ProgramSpec("client", f"client {number}", dqc_client.main, inputs)


def server(number: int) -> ProgramSpec:
    inputs = {"alpha_steps": 8, "circuits": CIRCUITS, "socket_id": number}
    return ProgramSpec("server", f"server {number}", dqc_server.main, inputs)


def tomography(number: int) -> ProgramSpec:
    inputs = {"node": "client", "repetitions": REPETITIONS}
    return ProgramSpec("client", f"lgt {number}", lgt.main, inputs)


def nodes(scheduler: str = "fcfs", **limits: int) -> Any:
    return build_two_nodes(
        NetworkConfig.preset("prompt"),
        load_profile("paper"),
        1,
        1,
        "behavioural",
        scheduler,
        Limits(**limits),
    )


def assert_nothing_is_left(system: TwoNodeSystem) -> None:
    for handle in (system.client, system.server):
        counted = handle.node.kernel.statistics()
        assert counted.processes == 0
        assert counted.free_qubits == 1
        assert not any(counted.link_requests.values())


@pytest.mark.parametrize("scheduler", POLICIES)
def test_fifty_at_a_node(scheduler):
    with nodes(scheduler) as system:
        pairs, alone = range(25), range(25)
        results = system.network.run(
            [
                *(client(number) for number in pairs),
                *(server(number) for number in pairs),
                *(tomography(number) for number in alone),
            ]
        )
        assert_nothing_is_left(system)
    assert [len(each) for each in results[:50]] == [CIRCUITS] * 50
    for zeros in results[50:]:
        assert len(zeros) == 6
        assert all(0 <= count <= REPETITIONS for counts in zeros for count in counts)


def test_programs_beyond_a_bound_fail_with_its_name_and_leave_nothing():
    with nodes(processes=10) as system:
        with pytest.raises(ProgramError, match=r"program lgt 10 failed: .*processes=10"):
            system.network.run([tomography(number) for number in range(12)])
        assert_nothing_is_left(system)


def test_requests_beyond_a_bound_fail_with_its_name_and_leave_nothing():
    with nodes(entanglement_requests=4) as system:
        with pytest.raises(ProgramError, match="entanglement_requests=4"):
            system.network.run(
                [each for number in range(8) for each in (client(number), server(number))]
            )
        assert_nothing_is_left(system)


def test_many_that_wait_in_vain_are_named_in_part():
    with nodes() as system:
        with pytest.raises(StalledProgramsError, match=r"server 7 for .*; and 42 more$") as caught:
            system.network.run([server(number) for number in range(50)])
        assert "server 8" not in str(caught.value)
        assert_nothing_is_left(system)
