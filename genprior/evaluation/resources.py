"""Wall time and peak memory of a block of code."""

import time
from pathlib import Path

import torch

SELF = Path("/proc/self")


class ResourceMeter:
    """Context manager that measures wall time and peak memory.

    Attributes:
        seconds: Wall time, in seconds.
        memory: Peak memory in bytes: of the CUDA allocator, or on a CPU of the whole process
            (Linux only); None if it cannot be read.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.memory: int | None = None

    def __enter__(self) -> "ResourceMeter":
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._has_peak = _reset_peak_memory()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.memory = torch.cuda.max_memory_allocated(self.device)
        elif self._has_peak:
            self.memory = _peak_memory()
        self.seconds = time.perf_counter() - self._started


def _reset_peak_memory() -> bool:
    """Resets the peak memory of the process; returns whether the system supports that."""
    try:
        (SELF / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_memory() -> int | None:
    for line in (SELF / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
