"""NODE.yaml: what is accepted, what is refused and in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qnodeos.errors import ConfigurationError
from qnodeos.limits import Limits
from qnodeos.service.node_file import LoopbackDevice, NodeFile, ShmDevice, SpiDevice, load_node
from qnodeos.transport import Address

MINIMAL = """
name: client
node_id: 0
device: {link: loopback}
api: {listen: ["unix:api.sock"]}
"""
FULL = """
name: client
node_id: 0
device: {link: shm, path: run/client.channel}
platform: nv
api: {listen: ["unix:run/client-api.sock", "tcp:127.0.0.1:7001"]}
peers:
  server:
    node_id: 1
    address: "tcp:127.0.0.1:7102"
    device_link: 0
    applications: "tcp:127.0.0.1:7202"
peer: {listen: "tcp:127.0.0.1:7101"}
applications: {listen: "unix:run/apps.sock"}
roles: {alice: client, bob: server}
tls: {certificate: tls/client.pem, key: /etc/keys/client.key, authority: tls/ca.pem}
realtime: {tick_priority: 0, policy_priority: 0, policy_core: 1, mode: event-paced}
limits: {connections: 3, instructions_per_activation: 1000}
trace: {events: 100}
scheduler: combined
"""


def load(tmp_path: Path, text: str) -> NodeFile:
    path = tmp_path / "node.yaml"
    path.write_text(text, "utf-8")
    return load_node(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "node.yaml"))
    return str(caught.value)


def test_the_least_that_a_node_needs(tmp_path):
    node = load(tmp_path, MINIMAL)
    assert isinstance(node.device, LoopbackDevice)
    assert node.node_ids == {"client": 0}
    assert node.peer is None
    assert node.realtime.tick_priority > node.realtime.policy_priority
    assert node.scheduler == "fcfs"


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    node = load(tmp_path, FULL)
    assert node.device == ShmDevice(path=tmp_path / "run/client.channel")
    assert node.api.listen == (
        Address(path=str(tmp_path / "run/client-api.sock")),
        Address(host="127.0.0.1", port=7001),
    )
    assert node.applications is not None
    assert node.applications.listen == Address(path=str(tmp_path / "run/apps.sock"))
    assert node.tls is not None
    assert node.tls.certificate == tmp_path / "tls/client.pem"
    assert node.tls.key == Path("/etc/keys/client.key")


def test_everything_that_a_node_may_say(tmp_path):
    node = load(tmp_path, FULL)
    assert node.node_ids == {"client": 0, "server": 1}
    assert node.peers["server"].applications == Address(host="127.0.0.1", port=7202)
    assert node.roles == {"alice": "client", "bob": "server"}
    assert node.limits.kernel(20_000) == Limits(
        programs_per_client=8,
        subroutine_bytes=16_384,
        array_length=16_384,
        array_entries=65_536,
        result_entries=65_536,
        instructions_per_activation=1000,
        offer_timeout_ticks=3_000_000,
        instructions_per_tick=200,
        activation_ticks=50_000,
        qubit_ticks=500_000,
        circuit_turn_ticks=500_000,
        pair_cutoff_ticks=500_000,
    )
    assert node.trace.events == 100


def test_loops_that_would_spin_on_this_machine(tmp_path):
    assert load(tmp_path, MINIMAL).spinning_loops == 2
    assert load(tmp_path, FULL).spinning_loops == 5  # two nodes and the laboratory
    elsewhere = FULL.replace("tcp:127.0.0.1:7102", "tcp:192.0.2.1:7102")
    assert load(tmp_path, elsewhere).spinning_loops == 3


def test_what_is_written_out_is_read_back(tmp_path):
    node = load(tmp_path, FULL)
    assert load(tmp_path, json.dumps(node.model_dump(mode="json"))) == node


def test_nodes_that_are_no_neighbours(tmp_path):
    node = load(
        tmp_path,
        FULL.replace("bob: server", "bob: hub")
        + """
far_nodes:
  hub: {node_id: 7, applications: "unix:run/hub.sock"}
  leaf: {node_id: 8}
""",
    )
    assert node.node_ids == {"client": 0, "server": 1, "hub": 7, "leaf": 8}
    assert node.application_addresses == {
        "server": Address(host="127.0.0.1", port=7202),
        "hub": Address(path=str(tmp_path / "run/hub.sock")),
    }
    assert node.roles["bob"] == "hub"
    assert node.spinning_loops == 7  # those of the hub, too


def test_spidev_needs_no_path(tmp_path):
    text = MINIMAL.replace("link: loopback", "link: spidev, bus: 1, speed_hz: 5000000")
    assert load(tmp_path, text).device == SpiDevice(bus=1, speed_hz=5_000_000)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"unix:api.sock"', '"tcp:0.0.0.0:7001"', ["api.listen[0]", "tls", "leaves this machine"]),
        ('"unix:api.sock"', '"tcp:example.org:7001"', ["api.listen[0]", "tls"]),
        ('"unix:api.sock"', '"7001"', ["api.listen[0]", "'7001'", "unix:/path"]),
        ('"unix:api.sock"', "7001", ["api.listen[0]", "an address is text"]),
        ('["unix:api.sock"]', "[]", ["api.listen"]),
        ("link: loopback", "link: usb", ["device", "usb", "shm"]),
        ("link: loopback", "path: x", ["device", "link"]),
        ("link: loopback", "link: shm", ["device", "path", "missing"]),
        ("node_id: 0", "node_id: -1", ["node_id", "greater"]),
        ("name: client", "name: a/b", ["name"]),
        ("name: client", "nam: client", ["nam", "name"]),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, words):
    assert old in MINIMAL
    message = refusal(tmp_path, MINIMAL.replace(old, new))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("addition", "words"),
    [
        ('peer: {listen: "tcp:10.0.0.1:1"}', ["peer.listen", "tls"]),
        ('applications: {listen: "tcp:10.0.0.1:1"}', ["applications.listen", "tls"]),
        ('peers: {b: {node_id: 1, address: "tcp:b.org:1"}}', ["peers.b.address", "tls"]),
        ('peers: {b: {node_id: 0, address: "unix:b"}}', ["peers.b", "node_id"]),
        ('peers: {client: {node_id: 1, address: "unix:b"}}', ["peers.client", "name"]),
        (
            'peers: {b: {node_id: 1, address: "unix:b"}, c: {node_id: 2, address: "unix:c"}}',
            ["peers.c", "peers.b", "device_link 0"],
        ),
        (
            'peers: {b: {node_id: 1, address: "unix:b"}}\nfar_nodes: {b: {node_id: 2}}',
            ["far_nodes.b", "one place"],
        ),
        ("far_nodes: {b: {node_id: 0}}", ["far_nodes.b", "node_id"]),
        ("far_nodes: {b: {node_id: 1}, c: {node_id: 1}}", ["far_nodes.c", "node_id"]),
        (
            'far_nodes: {b: {node_id: 1, applications: "tcp:b.org:1"}}',
            ["far_nodes.b.applications", "tls"],
        ),
        ("roles: {alice: nobody}", ["roles.alice", "nobody", "client"]),
        ("realtime: {tick_priority: 40}", ["tick_priority = 40", "policy_priority = 50"]),
        ("limits: {connections: 0}", ["limits.connections"]),
        ("scheduler: rr", ["scheduler", "no scheduler 'rr'", "fcfs", "deadline"]),
        ("scheduler: 3", ["scheduler", "string"]),
        ("limits: {conections: 1}", ["conections", "did you mean 'connections'"]),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path, addition, words):
    message = refusal(tmp_path, MINIMAL + addition)
    for word in words:
        assert word in message


def test_with_certificates_a_node_may_leave_the_machine(tmp_path):
    text = MINIMAL.replace("unix:api.sock", "tcp:0.0.0.0:7001")
    node = load(tmp_path, text + "tls: {certificate: a, key: b, authority: c}")
    assert not node.api.listen[0].is_local
