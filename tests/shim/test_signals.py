"""What a process that a container's program comes from ignores, the program does not inherit."""

from __future__ import annotations

import subprocess
import sys

# glibc keeps 32 and 33 to itself; make, which starts programs by posix_spawn(3), hands them down ignored.
PROGRAM = """
import signal
from wharfie.shim import signals
for number in (32, 33, 34):
    signals.set_action(number, signals.SigAction(handler=1))
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
before = signals.status_mask("SigIgn")
assert before >> 31 & 0b111 == 0b111, hex(before)
signals.default_signals()
print(signals.status_mask("SigIgn"))
"""


def test_every_signal_is_back_to_its_default():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "0\n"), result.stderr
