"""The emulation catches what it is for, and ThreadSanitizer sees no race in the CUDA kernel."""

import subprocess

import pytest

from tests.native.build import (
    EMULATED,
    EMULATED_SCAN,
    EMULATION,
    MEMORY_SANITIZERS,
    NATIVE,
    compile_cpp,
    require,
)

RACE_EXIT = 66  # ThreadSanitizer's own


def test_emulation_catches_faults(tmp_path):
    sources = [EMULATION / "emulation.cc", NATIVE / "emulation_test.cc"]
    program = compile_cpp(tmp_path / "emulation_test", sources, [*EMULATED, *MEMORY_SANITIZERS])
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def race_program(tmp_path_factory):
    output = tmp_path_factory.mktemp("races") / "scan_race_test"
    sources = [*EMULATED_SCAN, NATIVE / "scan_race_test.cc"]
    flags = ["-O1", "-fsanitize=thread", "-DMAMBAPRO_EMULATION_THREADS"]
    program = compile_cpp(output, sources, [*EMULATED, *flags])
    # gcc 12's ThreadSanitizer: no start where the kernel spreads addresses over too many bits.
    starts = "unexpected memory mapping" not in run(program).stderr
    require(starts, "ThreadSanitizer that starts (sysctl vm.mmap_rnd_bits=28)")
    return program


def run(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)


def test_no_race(race_program):
    done = run(race_program)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", ["0", "1", "2", "3", "shuffle"])
def test_a_fault_is_reported(race_program, fault):
    done = run(race_program, fault)
    assert done.returncode == RACE_EXIT, done.stdout + done.stderr
    assert "data race" in done.stderr
