"""What a process gave back, it takes again without asking the system."""

import os
import platform
import subprocess
import sys

import pytest

# Touches memory, gives it back and does so again: page faults of each round.
ROUNDS = """
import ctypes, resource, sys
from cxr_jax.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc, size = ctypes.CDLL(None), int(sys.argv[2])
libc.malloc.restype = libc.memset.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    place = libc.malloc(size)
    libc.memset(place, 1, size)
    libc.free(place)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc has such switches"
)
@pytest.mark.parametrize("size", [2**26, 2**31 + 2**26])
def test_freed_memory_is_kept(size):
    def faults(how, size):
        command = [sys.executable, "-c", ROUNDS, how, str(size)]
        done = subprocess.run(
            command, env=os.environ, check=True, capture_output=True, text=True
        )
        return [int(line) for line in done.stdout.split()]

    first, *again = faults("keep", size)
    # Huge pages are 512 small ones: 64 MiB are 32 of the former, 16,384 of the latter.
    assert first >= size // 2**21 and max(again) < 16
    assert min(faults("plain", 2**26)) >= 32
