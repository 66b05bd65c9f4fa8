"""Sockets of the API: the service's own, and those that systemd has opened."""

from __future__ import annotations

import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from qnodeos.errors import ConfigurationError
from qnodeos.service.limits_config import LimitsConfig
from qnodeos.service.listeners import close_all, open_listeners, reserve_descriptors
from qnodeos.service.node_file import NodeFile
from qnodeos.service.notify import ActivatedSocket
from qnodeos.transport import Address, listen
from qnodeos.transport.listening import address_of
from tests.service.service_bench import Bench, open_descriptors


@pytest.fixture
def folder():
    before = open_descriptors()
    with TemporaryDirectory(prefix="qn") as name:
        yield Path(name)
    assert open_descriptors() == before


def node(*addresses: str) -> NodeFile:
    return NodeFile.model_validate(
        {
            "name": "client",
            "node_id": 0,
            "device": {"link": "loopback"},
            "api": {"listen": addresses},
        }
    )


def test_all_addresses_are_listened_on_and_given_back(folder):
    listeners = open_listeners(node(f"unix:{folder}/a", f"unix:{folder}/b", "tcp:[::1]:0"))
    assert [address_of(each.socket).is_unix for each in listeners] == [True, True, False]
    close_all(listeners)
    assert not list(folder.iterdir())


def test_what_systemd_has_opened_is_taken_and_left_in_its_place(folder):
    path = folder / "activated"
    tcp = listen(Address(host="127.0.0.1"), None)
    port = tcp.getsockname()[1]
    activated = [
        ActivatedSocket("api", listen(Address(path=str(path)), None)),
        ActivatedSocket("api", tcp),
    ]
    listeners = open_listeners(
        node(f"unix:{path}", f"tcp:localhost:{port}", f"unix:{folder}/own"), activated
    )
    assert {each.socket for each in activated} < {each.socket for each in listeners}
    assert len(listeners) == 3
    close_all(listeners)
    assert [each.name for each in folder.iterdir()] == ["activated"]


def test_if_one_fails_none_is_left_open(folder):
    taken = listen(Address(path=str(folder / "taken")), None)
    activated = [ActivatedSocket("api", listen(Address(path=str(folder / "a")), None))]
    with pytest.raises(ConfigurationError, match="in use"):
        open_listeners(node(f"unix:{folder}/b", f"unix:{folder}/taken"), activated)
    assert activated[0].socket.fileno() == -1
    taken.close()


def test_an_activated_socket_that_others_can_reach_needs_tls(folder):
    public = socket.create_server(("0.0.0.0", 0))
    with pytest.raises(ConfigurationError, match="other machines"):
        open_listeners(node(f"unix:{folder}/a"), [ActivatedSocket("api", public)])
    assert public.fileno() == -1


def test_descriptors_are_counted_before_they_are_needed():
    reserve_descriptors(LimitsConfig(connections=1, handshakes=1))


def test_a_service_that_cannot_attach_gives_everything_back(folder):
    with pytest.raises(ConfigurationError, match="device_link"):
        Bench(
            folder,
            fields={"peers": {"b": {"node_id": 1, "address": "unix:b", "device_link": 3}}},
        )
