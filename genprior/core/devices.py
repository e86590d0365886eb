"""Selection of devices, floating-point types and autocast."""

import functools
import platform
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from genprior.core.errors import PrecisionWarning, SettingError

P = ParamSpec("P")
R = TypeVar("R")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Wraps a function so that it runs with `torch.autocast` disabled, in its tensors' dtypes."""

    @functools.wraps(function)
    def exact(*arguments: P.args, **named: P.kwargs) -> R:
        with ExitStack() as stack:
            for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda", "mps")):
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*arguments, **named)

    return exact


def pick_device(device: str | torch.device, near: Tensor) -> torch.device:
    """Returns the device to compute on.

    Arguments:
        device: "auto", "cpu", "cuda", "mps", "cuda:1" or a device of torch.
        near: "auto" means the device of this tensor if that is an accelerator, else CUDA if
            available, else the CPU.

    Raises:
        SettingError: The device is not available on this machine.
    """
    device = str(device)
    if device == "auto":
        if near.device.type != "cpu":
            return near.device
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return torch.device(device)
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
    """Returns whether a device supports bfloat16 natively; other CPUs emulate it, slowly."""
    if device.type != "cpu":
        return True
    if platform.machine().lower() in ("aarch64", "arm64"):
        built_in = torch.backends.mkldnn.is_available()
        return built_in and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()


def pick_dtype(dtype: str, device: torch.device) -> str:
    """Returns the name of a precision for a device; "auto" is float32 on every device.

    Warns about a precision that was asked for and that the device only emulates, slowly.
    """
    if dtype == "auto":
        return "float32"
    if dtype in DTYPES and not _is_native(DTYPES[dtype], device):
        warnings.warn(
            f"this CPU has no instructions for {dtype}, which therefore takes 4 to 8 times longer "
            f"than float32: choose float32",
            PrecisionWarning,
            stacklevel=2,
        )
    return dtype


def _is_native(dtype: torch.dtype, device: torch.device) -> bool:
    if dtype == torch.bfloat16:
        return has_bfloat16(device)
    if dtype == torch.float16 and device.type == "cpu":
        built_in = torch.backends.mkldnn.is_available()
        return built_in and torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return True
