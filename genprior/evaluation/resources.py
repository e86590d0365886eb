"""What a piece of work costs: seconds, and peak memory where it can be read."""

import time
from pathlib import Path

import torch

SELF = Path("/proc/self")


class ResourceMeter:
    """Measures the work inside a `with`.

    Attributes:
        seconds: Wall time.
        memory: Largest memory in bytes: of the CUDA allocator, or on a CPU of the whole process
            (Linux); None where it cannot be read.
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
            self._resets = _reset_peak()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.memory = torch.cuda.max_memory_allocated(self.device)
        elif self._resets:
            self.memory = _peak()
        self.seconds = time.perf_counter() - self._started


def _reset_peak() -> bool:
    """Starts the peak of the process anew; says whether that is possible here."""
    try:
        (SELF / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak() -> int | None:
    for line in (SELF / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
