"""The shim's loop by itself."""

from __future__ import annotations

import os
import socket

from wharfie.shim.loop import PEER_ENDED, READ, Loop


def test_what_was_found_of_one_descriptor_is_not_told_to_the_next_of_its_number() -> None:
    """A client hangs up; before its turn comes it is let go, and a new client gets the number."""
    failures: list[str] = []
    loop = Loop(lambda: failures.append("failed"))
    pairs = [socket.socketpair() for _ in range(2)]
    told: list[int] = []
    quiet, other_end = socket.socketpair()

    def first(number: int) -> None:
        """Whichever is served first replaces the other one."""
        gone = pairs[1 - number][0].fileno()
        loop.forget(gone)
        os.dup2(quiet.fileno(), gone)
        loop.watch(gone, READ | PEER_ENDED, told.append)
        loop.forget(pairs[number][0].fileno())

    for number, (ours, theirs) in enumerate(pairs):
        loop.watch(ours.fileno(), READ | PEER_ENDED, lambda events, number=number: first(number))
        theirs.close()
    loop.after(0.05, loop.stop)
    loop.run()
    assert told == failures == []
    other_end.sendall(b"x")
    again = Loop(lambda: None)
    again.watch(quiet.fileno(), READ, lambda events: (told.append(events), again.stop()))
    again.run()
    assert told == [READ]
    for end in (quiet, other_end, *(ours for ours, _ in pairs)):
        end.close()
