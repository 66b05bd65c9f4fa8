"""The controller: one schedule in the ticks of every node, whatever the network does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from qnodeos.api.peer_wire import (
    MAX_SCHEDULE,
    PROTOCOL_VERSION,
    Installed,
    PeerHello,
    ReadTick,
    TickReading,
    decode,
    encode,
)
from qnodeos.cli import app
from qnodeos.errors import ConfigurationError, TickMismatchError, UncertainTickError
from qnodeos.qnpu.routes import Route
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.service.controller import ControllerCore
from qnodeos.service.controller_file import ControllerFile, load_controller
from qnodeos.service.peers import PeerManager
from qnodeos.service.schedule_plan import plan_bins
from qnodeos.service.tick_grid import COMMON_TICKS, Grid, TickFix
from tests.service.peer_net import CONTROLLER, MS, TICK_NS, FakeKernel, Host, Net

NAMES = {0: "client", 1: "server", 2: "repeater"}


def network(*names: str, **changes: Any) -> ControllerFile:
    """A line of nodes."""
    ids = {name: number for number, name in NAMES.items() if name in names}
    values: dict[str, Any] = {
        "nodes": {
            name: {"node_id": number, "address": f"tcp:127.0.0.1:{7000 + number}"}
            for name, number in ids.items()
        },
        "links": list(pairwise(names)),
        "synchronisation": {"period_ms": 100, "exchanges": 4, "first_round_ms": 500},
        "start_delay_ms": 50,
    }
    return ControllerFile.model_validate(values | changes)


PAIR = network("client", "server")


def start_pair(net: Net, *offsets: int) -> tuple[Host, Host]:
    first, second = [*offsets, 0, 0][:2]
    return (
        net.start(0, "client", {1: "server"}, offset_ticks=first),
        net.start(1, "server", {0: "client"}, offset_ticks=second),
    )


def epochs(net: Net) -> list[int]:
    """When bin 0 of each node begins, in ticks that are the same for all."""
    found = []
    for node_id, host in sorted(net.hosts.items()):
        if node_id != CONTROLLER:
            assert host.kernel.schedule is not None, f"node {node_id} has no schedule"
            found.append(host.kernel.schedule.epoch_tick - host.offset_ticks)
    return found


def installs(host: Host) -> int:
    """How many schedules its kernel was given."""
    return sum(entry[0] == "schedule" for entry in host.kernel.log)


def errors(core: ControllerCore) -> dict[str, str]:
    return {name: node["error"] for name, node in core.status()["nodes"].items() if node["error"]}


# --- the same bins for all ------------------------------------------------------------


def test_two_nodes_get_the_same_bins():
    net = Net()
    first, second = start_pair(net, 3 * COMMON_TICKS, 0)
    core = net.start_controller(PAIR)
    net.run(200)
    assert core.is_ready
    assert core.summary() == "schedule 1 at 2 of 2 nodes"
    assert len(set(epochs(net))) == 1
    for host, peer in ((first, 1), (second, 0)):
        schedule = host.kernel.schedule
        assert schedule is not None
        assert (schedule.bin_ticks, schedule.guard_ticks, schedule.batch_ticks) == (1000, 100, 882)
        assert schedule.pattern == (peer,)
        assert installs(host) == 1
        assert host.kernel.connected == {peer}
    net.run(5_000)
    assert installs(first) == installs(second) == 1, "it stays"


def test_a_new_schedule_begins_in_the_near_future():
    net = Net()
    first, _ = start_pair(net)
    net.start_controller(PAIR)
    while first.kernel.schedule is None:
        net.run(1)
    ahead = first.kernel.schedule.epoch_tick - net.tick(first)
    assert 4_500 <= ahead <= 5_000


@settings(max_examples=100)
@given(
    offsets=st.lists(st.integers(-(10**6), 10**6), min_size=3, max_size=3),
    most_ms=st.sampled_from([0.05, 0.5, 3, 8]),
    seed=st.integers(0, 99),
)
@example([0, 0, 0], 8, 1)
def test_whatever_the_offsets_and_delays_all_bins_begin_at_once(offsets, most_ms, seed):
    """Each way takes anything up to ``most_ms``, in each direction, each time anew."""
    chances = Random(seed)
    net = Net(lambda: chances.randint(10_000, round(most_ms * MS)))
    multiples = [offset * COMMON_TICKS for offset in offsets]
    net.start(0, "client", {1: "server"}, offset_ticks=multiples[0])
    net.start(1, "server", {0: "client", 2: "repeater"}, offset_ticks=multiples[1])
    net.start(2, "repeater", {1: "server"}, offset_ticks=multiples[2])
    core = net.start_controller(network("client", "server", "repeater"))
    net.run(1_500)
    assert core.is_ready, core.status()
    assert len(set(epochs(net))) == 1
    assert net.hosts[1].kernel.schedule is not None
    assert sorted(net.hosts[1].kernel.schedule.pattern, key=str) == [0, 2]


@pytest.mark.parametrize("offset", [1_500, -700, 2_048, 200])
def test_devices_that_were_not_synchronised_are_found(offset):
    net = Net()
    first, second = start_pair(net, 0, 5 * COMMON_TICKS + offset)
    core = net.start_controller(PAIR)
    net.run(1_000)
    assert not core.is_ready
    assert "common SYNC edge" in errors(core)["server"]
    assert "1 of 2 nodes" in core.summary()
    assert "without a schedule: server" in core.summary()
    assert second.kernel.schedule is None
    assert first.kernel.schedule is not None
    said = [line for line in net.hosts[CONTROLLER].said if "SYNC" in line]
    assert len(said) == 1, "said once"
    second.offset_ticks = 5 * COMMON_TICKS  # somebody has given the edge
    net.run(200)
    assert core.is_ready
    assert errors(core) == {}


def test_a_network_too_slow_to_tell_the_multiple():
    net = Net(lambda: 12 * MS)
    start_pair(net)
    core = net.start_controller(PAIR)
    net.run(3_000)
    assert not core.is_ready
    assert "less than 1024 are needed" in " ".join(errors(core).values())


def test_the_controllers_clock_may_drift():
    """Away from the devices' by 1.5 multiples, in the end; it follows them."""
    net = Net()
    net.drift = 150e-6
    first, _ = start_pair(net)
    core = net.start_controller(PAIR)
    net.run(410_000)
    assert core.is_ready
    net.kill(1)
    second = net.start(1, "server", {0: "client"}, offset_ticks=5 * COMMON_TICKS)
    net.run(1_000)
    assert core.is_ready
    assert len(set(epochs(net))) == 1
    assert (installs(first), installs(second)) == (1, 1)


def test_one_slow_round_does_not_matter():
    net = Net()
    first, second = start_pair(net, 0, COMMON_TICKS)
    core = net.start_controller(PAIR)
    net.run(500)
    net.delay_ns = lambda: 15 * MS
    net.run(1_000)
    assert core.status()["nodes"]["client"]["round_trip_us"] == 30_000
    assert errors(core) == {}
    net.delay_ns = lambda: 100_000
    net.run(300)
    assert core.is_ready
    assert errors(core) == {}
    assert installs(first) == installs(second) == 1


# --- the grid itself ------------------------------------------------------------------


@given(
    tick=st.integers(0, 1 << 40),
    epoch=st.integers(-(10**7), 10**7),
    multiple=st.integers(-(10**6), 10**6),
    errors_ns=st.tuples(st.integers(0, 4 * MS), st.integers(0, 4 * MS)),
    shares=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    later_ns=st.integers(0, 3_000 * MS),
)
def test_readings_within_their_error_settle_the_multiple(
    tick, epoch, multiple, errors_ns, shares, later_ns
):
    at_ns = 10**12
    reference = TickFix(tick, at_ns + round(shares[0] * errors_ns[0]), errors_ns[0])
    grid = Grid.of(reference, tick + epoch, TICK_NS)
    other_tick = tick + multiple * COMMON_TICKS + later_ns // TICK_NS
    there = TickFix(other_tick, at_ns + later_ns + round(shares[1] * errors_ns[1]), errors_ns[1])
    placement = grid.place(there, tolerance_ticks=2)
    assert placement.epoch_tick == tick + epoch + multiple * COMMON_TICKS
    assert abs(placement.residual_ticks) <= placement.error_ticks


@given(offset=st.integers(-COMMON_TICKS // 2, COMMON_TICKS // 2), error_ns=st.integers(0, 20 * MS))
def test_counters_that_do_not_fit_are_never_believed(offset, error_ns):
    grid = Grid.of(TickFix(1_000_000, 10**12, 0), 1_000_500, TICK_NS)
    there = TickFix(1_000_000 + offset, 10**12, error_ns)
    error = error_ns / TICK_NS + 2
    if error >= COMMON_TICKS / 4:
        with pytest.raises(UncertainTickError, match="is known to"):
            grid.place(there, tolerance_ticks=2)
    elif abs(offset) > error:
        with pytest.raises(TickMismatchError, match="ticks off those of the other nodes"):
            grid.place(there, tolerance_ticks=2)
    else:
        assert grid.place(there, tolerance_ticks=2).epoch_tick == 1_000_500


# --- nodes and controllers that come and go -------------------------------------------


def test_a_node_that_comes_late_gets_the_schedule_of_the_others():
    net = Net()
    first = net.start(0, "client", {1: "server"})
    core = net.start_controller(PAIR)
    net.run(1_000)
    assert first.kernel.schedule is not None
    assert core.summary() == "schedule 1 at 1 of 2 nodes; not connected: server"
    net.run(20_000)
    second = net.start(1, "server", {0: "client"}, offset_ticks=-7 * COMMON_TICKS)
    net.run(500)
    assert core.is_ready
    assert len(set(epochs(net))) == 1
    assert (installs(first), installs(second)) == (1, 1)


def test_a_node_that_starts_anew_gets_it_again_and_the_others_do_not_notice():
    """An SPI link knows the low bits only, so its new count may differ by any multiple."""
    net = Net()
    first, _ = start_pair(net)
    core = net.start_controller(PAIR)
    net.run(500)
    before = epochs(net)
    net.kill(1)
    net.run(300)
    second = net.start(1, "server", {0: "client"}, offset_ticks=-3 * COMMON_TICKS)
    net.run(500)
    assert core.is_ready
    assert epochs(net) == before
    assert (installs(first), installs(second)) == (1, 1)
    assert "server: has started anew" in net.hosts[CONTROLLER].said


def test_a_device_that_starts_anew_under_a_running_qnpu():
    net = Net()
    first, second = start_pair(net)
    core = net.start_controller(PAIR)
    net.run(500)
    before = epochs(net)
    second.offset_ticks += 9 * COMMON_TICKS
    second.kernel.tick = -(1 << 40)
    net.run(500)
    assert core.is_ready
    assert epochs(net) == before
    assert (installs(first), installs(second)) == (1, 2)
    assert second.kernel.connected == {0}


@pytest.mark.parametrize(("first_by", "second_by"), [(1_234, 1_234), (-1_500, 2_596)])
def test_all_devices_start_anew_with_another_edge_under_running_qnpus(first_by, second_by):
    """Each engine goes on near where it was, so the counts may differ by a multiple."""
    net = Net()
    first, second = start_pair(net)
    core = net.start_controller(PAIR)
    net.run(500)
    first.offset_ticks += first_by
    second.offset_ticks += second_by
    for host in (first, second):
        host.kernel.tick = -(1 << 40)
    net.run(600)
    assert core.is_ready
    assert errors(core) == {}
    assert len(set(epochs(net))) == 1
    assert "SYNC" not in " ".join(net.hosts[CONTROLLER].said)
    assert installs(first) == 1, "its bins are as before, in its own ticks"
    assert installs(second) == (1 if first_by == second_by else 2)


@pytest.mark.parametrize("away_ms", [0, 300, 120_000])
def test_the_next_controller_keeps_the_bins(away_ms):
    net = Net()
    first, second = start_pair(net, 0, 2 * COMMON_TICKS)
    net.start_controller(PAIR)
    net.run(500)
    before = epochs(net)
    net.kill(CONTROLLER)
    net.run(away_ms)
    assert first.kernel.connected == {1}
    core = net.start_controller(PAIR)
    net.run(1_000)
    assert core.is_ready
    assert core.number == 2
    assert epochs(net) == before
    assert first.kernel.losses(1) == second.kernel.losses(0) == 0
    assert installs(first) == installs(second) == 1, "nothing has changed"


def test_the_next_controller_may_change_the_pattern_at_the_same_bin_everywhere():
    net = Net()
    net.start(0, "client", {1: "server"})
    net.start(1, "server", {0: "client", 2: "repeater"}, offset_ticks=COMMON_TICKS)
    net.start(2, "repeater", {1: "server"})
    net.start_controller(network("client", "server", "repeater"))
    net.run(800)
    before = epochs(net)
    net.kill(CONTROLLER)
    core = net.start_controller(network("client", "server"))
    net.run(800)
    assert core.is_ready
    assert epochs(net) == before
    changes = [
        [entry[1:] for entry in net.hosts[node_id].kernel.log if entry[0] == "schedule"]
        for node_id in (0, 1)
    ]
    assert [len(of_node) for of_node in changes] == [2, 2]
    assert changes[0][-1][0].pattern == (1,)
    assert changes[1][-1][0].pattern == (0,)
    assert changes[0][-1][1] == changes[1][-1][1] > 0, "from the same bin on"


def test_the_next_controller_may_want_other_bins():
    net = Net()
    first, second = start_pair(net)
    net.start_controller(PAIR)
    net.run(500)
    net.kill(CONTROLLER)
    core = net.start_controller(network("client", "server", bin_ms=20, guard_ms=2, batch_ms=15))
    net.run(1_500)
    assert core.is_ready
    assert len(set(epochs(net))) == 1
    assert first.kernel.schedule is not None
    assert first.kernel.schedule.bin_ticks == 2_000
    assert first.kernel.losses(1) >= 1
    assert first.kernel.connected == {1}
    assert second.kernel.connected == {0}


def test_all_nodes_away_for_so_long_that_the_bins_are_lost():
    net = Net()
    start_pair(net)
    core = net.start_controller(PAIR)
    net.run(500)
    for node_id in (0, 1):
        net.kill(node_id)
    net.run(200_000)
    start_pair(net, 3 * COMMON_TICKS + 17, 17)  # with another SYNC edge, too
    net.run(1_000)
    assert core.is_ready
    assert len(set(epochs(net))) == 1


@settings(max_examples=40)
@given(st.data())
def test_whatever_comes_and_goes_the_nodes_agree_in_the_end(data):
    chances = Random(data.draw(st.integers(0, 999)))
    net = Net(lambda: chances.randint(20_000, 2 * MS))
    start_pair(net)
    net.start_controller(PAIR)
    acts = st.sampled_from(["node 0", "node 1", "controller", "cut", "silence", "garbage"])
    for act in data.draw(st.lists(acts, max_size=10)):
        if act.startswith("node"):
            node_id = int(act[-1])
            net.kill(node_id)
            net.run(chances.randint(0, 300))
            offset = chances.randint(-9, 9) * COMMON_TICKS
            net.start(
                node_id, NAMES[node_id], {1 - node_id: NAMES[1 - node_id]}, offset_ticks=offset
            )
        elif act == "controller":
            net.kill(CONTROLLER)
            net.run(chances.randint(0, 300))
            net.start_controller(PAIR)
        elif act == "garbage":
            for end in [end for end in net._by_end if end[0] == CONTROLLER][:1]:
                net.hosts[CONTROLLER].machine.received(end[1], chances.randbytes(9), net.now_ns)
        else:
            net.cut(silently=act == "silence")
        net.run(chances.randint(0, 700))
    net.run(4_000)
    core = net.hosts[CONTROLLER].machine
    assert isinstance(core, ControllerCore)
    assert core.is_ready, core.status()
    assert len(set(epochs(net))) == 1


# --- who answers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({"name": "other"}, "'other' (node 1) answered, not 'server' (node 1)"),
        ({"tick_ns": 20_000}, "a tick lasts 20000 ns at 'server'"),
        ({"controller": "boss"}, "obeys the controller 'boss', not 'controller'"),
    ],
)
def test_a_node_that_is_not_the_one_in_the_file(start, words):
    net = Net()
    first = net.start(0, "client", {1: "server"})
    arguments: dict[str, Any] = {"name": "server"} | start
    other = net.start(1, arguments.pop("name"), {0: "client"}, **arguments)
    core = net.start_controller(PAIR)
    net.run(1_200)
    assert words in errors(core)["server"]
    assert words in " ".join(other.said), "both ends say why"
    assert first.kernel.schedule is not None
    assert other.kernel.schedule is None


def test_a_node_whose_ticks_last_no_time():
    net = Net()
    net.start(0, "client", {1: "server"}, tick_ns=0)
    core = net.start_controller(PAIR)
    net.run(200)
    assert "a tick lasts 0 ns at 'client'" in errors(core)["client"]


def test_ticks_that_cease_to_fit_while_a_schedule_is_being_installed():
    core = ControllerCore(PAIR, incarnation=1, now_ns=0)
    core.poll(0)
    nodes = dict(core.dials)
    offsets = {0: 0, 1: 0}

    def answer(now_ns: int) -> None:
        """Answer all questions for ticks, and nothing else."""
        while core.outbox:
            outbox, core.outbox = core.outbox, []
            for connection, payload in outbox:
                asked = decode(payload)
                if isinstance(asked, ReadTick):
                    tick = now_ns // TICK_NS + offsets[nodes[connection]]
                    core.received(connection, encode(TickReading(asked.nonce, tick, 0)), now_ns)

    for connection, node in nodes.items():
        core.opened(connection, 0)
        hello = PeerHello(PROTOCOL_VERSION, "qnpu", node, NAMES[node], 1, 1, TICK_NS)
        core.received(connection, encode(hello), 0)
    answer(0)
    assert core.nodes["client"].is_installing
    offsets[0] = 1_000
    core.poll(150 * MS)
    answer(150 * MS)
    for connection in nodes:
        core.received(connection, encode(Installed(1)), 150 * MS)
    assert (core.nodes["client"].installed, core.nodes["server"].installed) == (0, 1)
    offsets[0] = 0
    core.poll(300 * MS)
    answer(300 * MS)
    assert core.nodes["client"].is_installing, "it gets it again"


@pytest.mark.parametrize("number", [MAX_SCHEDULE, MAX_SCHEDULE - 1, MAX_SCHEDULE + 1, 2**63 - 1])
def test_a_node_with_an_absurd_number_of_a_schedule_does_not_keep_others_from_theirs(number):
    net = Net()
    first, second = start_pair(net)
    assert isinstance(second.machine, PeerManager)
    second.machine._control.schedule_number = number
    core = net.start_controller(PAIR)
    net.run(2_000)
    assert first.kernel.schedule is not None
    if number <= MAX_SCHEDULE:
        assert core.is_ready
        assert len(set(epochs(net))) == 1
        assert core.number == MAX_SCHEDULE
        net.kill(CONTROLLER)
        core = net.start_controller(PAIR)  # there is a next one even so
        net.run(1_000)
        assert core.is_ready
    else:
        assert second.kernel.schedule is None
        assert "$[3]" in errors(core)["server"]
        assert any(line.startswith("server: not a message") for line in net.hosts[CONTROLLER].said)


@pytest.mark.parametrize("epoch_tick", [(1 << 62) - 1, 1 << 40, 10_000_000, -(1 << 62), -(1 << 46)])
def test_a_node_with_an_absurd_epoch_does_not_take_the_bins_of_others_there(epoch_tick):
    net = Net()
    first, second = start_pair(net)
    assert isinstance(second.machine, PeerManager)
    second.machine._control._schedule = NetworkSchedule(1_000, 10, 100, (0,), epoch_tick)
    second.machine._control.schedule_number = 5
    lengths = {"bin_ms": 10, "guard_ms": 0.1, "batch_ms": 1}
    core = net.start_controller(network("client", "server", **lengths))
    net.run(2_000)
    assert core.is_ready
    assert core.number == 6
    assert len(set(epochs(net))) == 1
    assert abs(epochs(net)[0] - net.tick(first)) < 500_000
    assert any(
        line.startswith(f"server: says that its bins begin at tick {epoch_tick}")
        for line in net.hosts[CONTROLLER].said
    )


def test_a_node_that_has_no_such_neighbour():
    def refuse(schedule: NetworkSchedule, from_bin: int | None = None) -> bool:
        raise ConfigurationError("bins for nodes [0], which are no neighbours")

    net = Net()
    _, second = start_pair(net)
    second.kernel.install_schedule = refuse  # type: ignore[method-assign]
    core = net.start_controller(PAIR)
    net.run(500)
    assert "does not take schedule 1: bins for nodes [0]" in errors(core)["server"]
    assert not core.is_ready


# --- which links share a bin ----------------------------------------------------------


@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_no_node_has_two_neighbours_in_a_bin_and_every_link_has_one(pairs):
    links = sorted({(f"n{min(p)}", f"n{max(p)}") for p in pairs if p[0] != p[1]})
    if not links:
        return
    bins = plan_bins(links)
    for of_bin in bins:
        names = [name for link in of_bin for name in link]
        assert len(names) == len(set(names))
        for link in links:  # no link could be added
            assert link in of_bin or not set(names).isdisjoint(link)
    assert {link for of_bin in bins for link in of_bin} == set(links)
    degree = max(sum(name in link for link in links) for link in links for name in link)
    assert degree <= len(bins) <= 2 * degree - 1


def test_patterns_of_the_nodes_of_a_ring():
    names = [f"n{i}" for i in range(4)]
    file = ControllerFile.model_validate(
        {
            "nodes": {n: {"node_id": i, "address": "unix:x"} for i, n in enumerate(names)},
            "links": [[names[i], names[(i + 1) % 4]] for i in range(4)],
        }
    )
    assert file.patterns() == {"n0": (1, 3), "n1": (0, 2), "n2": (3, 1), "n3": (2, 0)}


# --- the file -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"links": [["client", "nobody"]]}, "'nobody' is no node"),
        ({"links": [["client", "client"]]}, "joins a node to itself"),
        ({"links": [["client", "server"], ["server", "client"]]}, "named twice"),
        ({"links": []}, "links"),
        (
            {"nodes": {n: {"node_id": 1, "address": "unix:x"} for n in ("client", "server")}},
            "share node_id 1",
        ),
        (
            {
                "nodes": {
                    "client": {"node_id": 0, "address": "tcp:192.0.2.1:7101"},
                    "server": {"node_id": 1, "address": "unix:x"},
                }
            },
            "leaves this machine",
        ),
        ({"bin_ms": 0}, "bin_ms"),
    ],
)
def test_files_that_cannot_be(tmp_path, changes, words):
    path = tmp_path / "controller.yaml"
    right = PAIR.model_dump(mode="json")
    path.write_text(json.dumps(right))  # JSON is YAML
    assert load_controller(path) == PAIR
    path.write_text(json.dumps(right | changes))
    with pytest.raises(ConfigurationError, match=words):
        load_controller(path)


def test_bins_too_short_for_the_batches_are_an_error_of_the_nodes():
    net = Net()
    start_pair(net)
    core = net.start_controller(network("client", "server", bin_ms=5))
    net.run(300)
    assert "bin_ms, guard_ms and batch_ms do not go together" in errors(core)["client"]


def test_the_command_names_what_is_wrong_with_its_file(tmp_path):
    path = tmp_path / "controller.yaml"
    path.write_text("nodes: {}\n")
    result = CliRunner().invoke(app, ["controller", str(path)])
    assert isinstance(result.exception, ConfigurationError)
    assert "controller.yaml" in str(result.exception)


# --- routes ---------------------------------------------------------------------------

SQUARE = {"nodes": {
    name: {"node_id": number, "address": f"tcp:127.0.0.1:{7000 + number}"}
    for number, name in enumerate(("a", "b", "c", "d"))
}}  # fmt: skip


def square(*fidelities: float) -> ControllerFile:
    """Nodes a, b, c and d in a ring."""
    ring = (("a", "b"), ("b", "c"), ("c", "d"), ("d", "a"))
    links = [(*link, fidelity) for link, fidelity in zip(ring, fidelities, strict=True)]
    return network(**(SQUARE | {"links": links}))


def start_square(net: Net, *numbers: int) -> dict[int, Host]:
    names = dict(enumerate("abcd"))
    return {
        number: net.start(number, names[number], {other: names[other] for other in sides(number)})
        for number in numbers
    }


def sides(number: int) -> tuple[int, int]:
    return (number - 1) % 4, (number + 1) % 4


def test_routes_come_with_the_schedule_and_follow_the_better_links():
    net = Net()
    hosts = start_square(net, 0, 1, 2, 3)
    net.start_controller(square(0.9, 0.9, 0.95, 0.95))
    net.run(300)
    opposite = hosts[0].kernel.routes[2]
    assert (opposite.next_hop, opposite.hops) == (3, 2)
    assert opposite.fidelity == pytest.approx((1 + 3 * (2.8 / 3) ** 2) / 4)
    assert hosts[2].kernel.routes[0].next_hop == 3
    assert hosts[0].kernel.routes[1].hops == 1
    assert sorted(hosts[1].kernel.routes) == [0, 2, 3]


def test_a_node_that_leaves_is_not_led_through_until_it_is_back():
    net = Net()
    hosts = start_square(net, 0, 1, 2, 3)
    net.start_controller(square(0.9, 0.9, 0.95, 0.95))
    net.run(300)
    before = installs(hosts[0])
    net.kill(3)
    net.run(500)
    assert hosts[0].kernel.routes[2].next_hop == 1
    assert hosts[2].kernel.routes[0].next_hop == 1
    start_square(net, 3)
    net.run(1_000)
    assert hosts[0].kernel.routes[2].next_hop == 3
    assert installs(hosts[0]) == before, "its schedule stays"


def test_a_node_that_starts_anew_is_told_its_routes_again():
    net = Net()
    start_square(net, 0, 1, 2, 3)
    net.start_controller(square(0.9, 0.9, 0.95, 0.95))
    net.run(300)
    net.kill(0)
    again = start_square(net, 0)[0]
    net.run(1_000)
    assert sorted(again.kernel.routes) == [1, 2, 3]


def test_routes_a_node_cannot_use_are_said():
    net = Net()
    start_pair(net)
    net.start(2, "repeater", {}, kernel=Refusing())
    net.start_controller(network("client", "server", "repeater"))
    net.run(300)
    said = net.hosts[CONTROLLER].said
    assert "repeater: does not take its routes: no such neighbour" in said


class Refusing(FakeKernel):
    """A kernel that does not know its neighbours."""

    def install_routes(self, routes: Mapping[int, Route]) -> None:
        raise ConfigurationError("no such neighbour")


def test_a_link_may_have_a_fidelity():
    file = network(
        "client", "server", "repeater", links=[("client", "server", 0.9), ("server", "repeater")]
    )
    assert file.fidelities() == {(0, 1): 0.9, (1, 2): 1.0}
    assert file.patterns() == network("client", "server", "repeater").patterns()
    with pytest.raises(ValueError, match="less than or equal to 1"):
        network("client", "server", links=[("client", "server", 1.1)])
