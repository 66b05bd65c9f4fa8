"""Putting a system together from a configuration."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from qnodeos.assembly import (
    LINKS,
    NetworkConfig,
    NodeConfig,
    ScheduleConfig,
    build_two_nodes,
    load_profile,
)
from qnodeos.config.loader import parse_config
from qnodeos.errors import ConfigurationError
from qnodeos.qdevice.outcomes import BellState
from qnodeos.trace.events import Event
from sim.entangled_state import PerfectProtocol
from sim.link import LinkParameters
from sim.network import ProgramSpec
from sim.noise import NVNoise
from sim.nv_timing import NVTiming
from tests.system.bench import CERTAIN, ZERO, build


@pytest.mark.parametrize("link", LINKS)
def test_presets_survive_a_round_trip_through_a_file(link):
    config = NetworkConfig.preset(link)
    assert parse_config(config.model_dump_json(), NetworkConfig, "preset.yaml") == config


@pytest.mark.parametrize("link", LINKS)
def test_a_batch_of_a_preset_fits_its_bin(link):
    system = build_two_nodes(NetworkConfig.preset(link), ZERO, 1, trace_capacity=64)
    assert system.client.node.kernel.next_tick(0) is None  # nothing to do yet


def test_the_preset_links_differ_in_their_rate():
    paper, fast = (NetworkConfig.preset(name).link for name in ("paper", "fast"))
    # 2.0 % per time bin is the published rate; attempts back to back are much faster.
    assert paper.batch_success_probability == pytest.approx(0.02, rel=0.1)
    assert fast.batch_success_probability > 5 * paper.batch_success_probability
    assert paper.protocol == fast.protocol


def test_the_noiseless_network_is_noiseless():
    config = NetworkConfig.noiseless()
    assert config.client.noise == config.server.noise == NVNoise.noiseless()
    assert isinstance(config.link.protocol, PerfectProtocol)
    assert set(config.link.protocol.heralds) == {BellState.PSI_PLUS, BellState.PSI_MINUS}


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"no link preset 'slow'.*: paper, fast, prompt$"):
        NetworkConfig.preset("slow")
    with pytest.raises(ConfigurationError, match=r"profile '\.\./x'.*: paper, prepared, zero$"):
        load_profile("../x")


def test_a_program_for_a_node_that_is_not_there_is_refused_before_any_starts():
    system = build()
    started = []
    programs = [
        ProgramSpec("client", "first", lambda: started.append(1), {}),
        ProgramSpec("bob", "second", lambda: started.append(2), {}),
    ]
    with pytest.raises(
        ConfigurationError,
        match=r"program second: .* no node 'bob'; the nodes are: client, server$",
    ):
        system.network.run(programs)
    assert not started
    assert system.network.run([]) == []


def test_nodes_know_each_other():
    system = build()
    assert system.client.cnpu.directory is system.server.cnpu.directory
    directory = system.client.cnpu.directory
    assert directory.get_node_id_for_app("client") == 0
    assert directory.get_node_id_for_app(app_name="server") == 1
    assert directory._get_node_name(node_id=1) == "server"
    with pytest.raises(ConfigurationError, match="unknown node id 2; known are: 0, 1"):
        directory._get_node_name(2)


def test_traces_have_the_units_and_the_size_that_were_asked_for():
    system = build_two_nodes(CERTAIN, ZERO, 1, trace_capacity=320)
    for handles in (system.client, system.server):
        assert handles.qnpu_trace.unit_ns == 10_000
        assert handles.qnpu_trace.capacity == 320
        assert handles.host_trace.unit_ns == 1_000
        assert handles.host_trace.capacity == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": ScheduleConfig(bin_ms=3, guard_ms=1)}, "do not fit a bin"),
        ({"schedule": ScheduleConfig(bin_ms=1, guard_ms=2)}, "guard"),
        ({"link": LinkParameters(attempts_per_batch=10_000)}, "do not fit a bin"),
        ({"client": NodeConfig(timing=NVTiming(tick_ns=20_000))}, "need the same tick"),
        ({"clients": NodeConfig()}, "clients"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        NetworkConfig(**changes)


def test_a_tick_of_another_length_works():
    # 20 us, as with trapped ions; both ends of a link must agree.
    node = NodeConfig(noise=NVNoise.noiseless(), timing=NVTiming(tick_ns=20_000))
    config = NetworkConfig(client=node, server=node, link=CERTAIN.link)
    system = build_two_nodes(config, ZERO, 1, trace_capacity=64)
    assert system.client.qnpu_trace.unit_ns == 20_000


def test_components_have_random_streams_of_their_own():
    # The same seed gives the same system; nothing is shared between the two nodes.
    first, second, other = (build(seed=seed) for seed in (1, 1, 2))
    names = ("client", "server")
    draws = {
        (label, name): [getattr(system, name).device._rng.random() for _ in range(3)]
        for label, system in (("first", first), ("second", second), ("other", other))
        for name in names
    }
    for name in names:
        assert draws["first", name] == draws["second", name] != draws["other", name]
    assert draws["first", "client"] != draws["first", "server"]


def test_an_idle_system_does_nothing():
    system = build(profile=load_profile("paper"))
    assert system.network.run([]) == []
    assert system.network.clock.now_ns == 0
    assert not len(system.client.qnpu_trace)
    assert not system.client.qnpu_trace.times(Event.PROCMGR_SUBROUTINE_ADDED).size
