"""A live run's pictures go back to the system as soon as they are free."""

import ctypes
import os
import subprocess
import sys

import pytest

from runtime.operation import memory
from runtime.operation.memory import give_back_large_blocks
from tests.rtsp import ROOT

HOLD_UP = """
import sys
import numpy as np
from runtime.operation.memory import LARGE_BYTES, give_back_large_blocks

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

np.ones(16 << 20, np.uint8)  # freed at once: from now on glibc keeps what is smaller
if sys.argv[1] == "mended":
    assert give_back_large_blocks()
before = resident_mb()
pictures, kept = [], []
for _ in range(25):  # a hold-up: pictures pile up, with something small that outlives them between
    pictures.append(np.ones(2 * LARGE_BYTES, np.uint8))
    kept.append(bytes(2000))
assert resident_mb() > before + 40
pictures.clear()
print(resident_mb() - before)
"""


def left_mb(how):
    """Return what a process that held 50 MB of pictures keeps of them."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", HOLD_UP, how],
        capture_output=True, text=True, check=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    return float(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc's malloc only")
def test_what_a_hold_up_took_goes_back():
    assert left_mb("as it is") > 40  # else this test would prove nothing
    assert left_mb("mended") < 5


def test_another_c_library_is_left_alone(monkeypatch):
    class Other:
        def __init__(self, name):
            assert name is None

    monkeypatch.setattr(memory.ctypes, "CDLL", Other)
    assert give_back_large_blocks() is False
