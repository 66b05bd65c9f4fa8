"""Whose partner an ER socket at the other end is, as programs with the same sockets come and go."""

from __future__ import annotations

import pytest

from qnodeos.limits import Limits
from qnodeos.qnpu.er_sockets import ErSocket
from qnodeos.qnpu.partners import Partners
from qnodeos.qnpu.process import UserProcess


def socket(socket_id: int = 0, remote_socket_id: int = 0) -> ErSocket:
    return ErSocket(UserProcess(1, (1, 0), 1, Limits()), socket_id, 2, remote_socket_id, 0)


@pytest.mark.parametrize("theirs_first", [True, False])
def test_sockets_that_are_open_together_are_partners(theirs_first):
    partners, ours = Partners(8), socket(3, 4)
    if theirs_first:
        partners.end_opened(4, 3, None)
        partners.opened(ours)
    else:
        partners.opened(ours)
        partners.end_opened(4, 3, ours)
    assert partners.end_closed(4) is ours
    assert partners.end_closed(4) is None


def test_an_end_is_the_partner_of_one_socket_only():
    partners, first, second = Partners(8), socket(), socket()
    partners.end_opened(0, 0, first)
    partners.opened(second)  # the first has closed; the same end is still there
    assert partners.end_closed(0) is first
    partners.end_opened(0, 0, second)
    assert partners.end_closed(0) is second


def test_an_end_that_names_another_socket_is_no_partner():
    partners, ours = Partners(8), socket(3, 4)
    partners.end_opened(4, 2, None)
    partners.opened(ours)
    assert partners.end_closed(4) is None


def test_what_is_said_again_changes_nothing():
    """After the connection was lost: the end is still that of the first socket."""
    partners, first, second = Partners(8), socket(), socket()
    partners.end_opened(0, 0, first)
    partners.end_opened(0, 0, second)
    assert partners.end_closed(0) is first


def test_an_end_that_now_names_another_socket_is_another():
    partners, first, second = Partners(8), socket(0, 0), socket(1, 0)
    partners.end_opened(0, 0, first)
    partners.end_opened(0, 1, second)
    assert partners.end_closed(0) is second


def test_so_many_ends_are_known_at_once():
    partners, ours = Partners(2), [socket(n, n) for n in range(3)]
    for number in range(3):
        partners.end_opened(number, number, ours[number])
    assert [partners.end_closed(number) for number in range(3)] == [None, ours[1], ours[2]]
