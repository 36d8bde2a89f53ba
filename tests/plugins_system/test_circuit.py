"""The circuit's rules, on a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wharfie.plugins.circuit import FAILURES, LONGEST_PAUSE, WINDOW, Circuit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Circuit:
    circuit = Circuit(clock)
    for _ in range(FAILURES):
        circuit.failed("broken")
    return circuit


def test_five_in_a_row_open_it():
    circuit = opened(Clock())
    assert circuit.open and circuit.wait() == 5 and circuit.cause == "broken"


def test_a_success_between_starts_the_count_again():
    circuit = Circuit(Clock())
    for _ in range(3):
        for _ in range(FAILURES - 1):
            circuit.failed("broken")
        circuit.succeeded()
    assert not circuit.open


def test_failures_spread_over_more_than_the_window_do_not_open_it():
    clock = Clock()
    circuit = Circuit(clock)
    for _ in range(20):
        circuit.failed("broken")
        clock.now += WINDOW / (FAILURES - 1) + 1
    assert not circuit.open


def test_pauses_double_up_to_a_minute_and_begin_anew_after_it_closed():
    clock = Clock()
    circuit = opened(clock)
    pauses = []
    for _ in range(6):
        pauses.append(circuit.wait())
        clock.now += circuit.wait()
        assert circuit.wait() == 0 and circuit.open
        circuit.probe_failed("still")
    assert pauses == [5, 10, 20, 40, 60, 60]
    circuit.close()
    assert not circuit.open and circuit.cause == ""
    for _ in range(FAILURES):
        circuit.failed("again")
    assert circuit.wait() == 5


def test_a_pause_is_no_longer_by_the_rounding_of_a_clock():
    clock = Clock()
    clock.now = 1023.9999999999999
    circuit = opened(clock)
    for _ in range(5):
        circuit.probe_failed("still")
    assert circuit.wait() == LONGEST_PAUSE


@given(st.lists(st.tuples(st.sampled_from(["failed", "succeeded", "probe_failed", "close"]), st.floats(0, 100))))
def test_it_never_waits_longer_than_the_longest_pause(steps):
    clock = Clock()
    circuit = opened(clock)
    for step, seconds in steps:
        clock.now += seconds
        if step == "probe_failed" and not circuit.open:
            continue
        getattr(circuit, step)(*(["x"] if "failed" in step else []))
        assert 0 <= circuit.wait() <= LONGEST_PAUSE
        assert circuit.open or circuit.wait() == 0
