"""Devices and number formats."""

import functools
import platform
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from genprior.core.errors import SettingError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def without_autocast(function: Callable) -> Callable:
    """A function whose arithmetic is that of its tensors, be it called under `torch.autocast`."""

    @functools.wraps(function)
    def exact(*arguments: Any, **named: Any) -> Any:
        with ExitStack() as stack:
            for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda", "mps")):
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*arguments, **named)

    return exact


def pick_device(device: str | torch.device, near: Tensor) -> torch.device:
    """The device to compute on.

    Arguments:
        device: "auto", "cpu", "cuda", "mps", "cuda:1" or a device of torch.
        near: "auto" stays where this tensor is if that is an accelerator, else takes CUDA
            where there is one, else the CPU.

    Raises:
        SettingError: The device does not exist here.
    """
    device = str(device)
    if device == "auto":
        if near.device.type != "cpu":
            return near.device
        device = "cuda" if torch.cuda.is_available() else "cpu"
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps:0")
    full = device if ":" in device or device == "cpu" else f"{device}:0"
    if full not in here:
        raise SettingError(
            f"device {device!r} is not available here: choose auto or {', '.join(here)}"
        )
    return torch.device(full)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; a CPU without them emulates it, slowly."""
    if device.type != "cpu":
        return True
    if platform.machine().lower() in ("aarch64", "arm64"):
        known = torch.backends.mkldnn.is_available()
        return known and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
