"""genprior doctor: checks of the installation, with a remedy for each failure."""

import importlib
import importlib.metadata
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from genprior import __version__
from genprior.core.errors import SomeFailed
from genprior.priors.weights import embedded_priors
from genprior.registry import find_prior

Check = tuple[str, bool, str]
# Errors of a broken installation: a module is missing, a library does not load, or this build
# of torch lacks an operator.
BROKEN = (ImportError, OSError, RuntimeError)
LIBRARIES = ("numpy", "deepinv", "scikit-image", "pillow", "tifffile", "safetensors", "click")
MIN_GAIN = 6.0  # dB


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def doctor(as_json: bool) -> None:
    """Check the installation.

    The checks are: libraries, devices, disk space, weights, and a short restoration. Prints one
    line per check. A line that begins with BAD says what is wrong and what to do. The exit code
    is 6 if a check fails.
    """
    results = []
    for name, ok, text in _checks():
        results.append({"check": name, "ok": ok, "text": text})
        if not as_json:
            click.echo(f"{'ok ' if ok else 'BAD'}  {name:12} {text}")
    if as_json:
        click.echo(json.dumps(results, indent=1))
    bad = sum(not result["ok"] for result in results)
    if bad:
        raise SomeFailed(f"{bad} of {len(results)} checks failed")


def _checks() -> Iterator[Check]:
    python = f"Python {platform.python_version()}"
    yield "genprior", True, f"{__version__}, {python}, {platform.platform()}"
    yield _torch()
    yield _torchvision()
    yield from map(_library, LIBRARIES)
    yield from _devices()
    from genprior.core.cache import cache_folder

    yield _disk("temporary", lambda: Path(tempfile.gettempdir()), "TMPDIR")
    yield _disk("cache", cache_folder, "GENPRIOR_HOME")
    for name in embedded_priors():
        yield _weights(name)
    if "ddpm" in embedded_priors():
        yield from _self_tests()


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _torch() -> Check:
    try:
        import torch
    except BROKEN as error:
        return "torch", False, f"{_version('torch')} cannot be imported ({error}): reinstall it"
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    threads = f"{torch.get_num_threads()} threads"
    return "torch", True, f"{torch.__version__}, built for {build}, {threads}"


def _torchvision() -> Check:
    try:
        importlib.import_module("torchvision")
    except BROKEN as error:
        text = f"{' '.join(str(error).split()):.80}"
        if isinstance(error, OSError) and error.errno:  # a file or a folder, not a library
            return "torchvision", False, f"cannot be imported ({text}): fix this error first"
        return "torchvision", False, (
            f"{_version('torchvision')} does not match torch {_version('torch')} "
            f"({text}): install both from one index, pip install "
            f"--force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu"
        )
    return "torchvision", True, _version("torchvision")


def _library(name: str) -> Check:
    version = _version(name)
    missing = version == "not installed"
    return name, not missing, f"{version}: pip install {name}" if missing else version


def _devices() -> Iterator[Check]:
    try:
        import torch
    except BROKEN:
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield f"cuda:{number}", True, f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        yield "mps", True, "available"


def _disk(name: str, find: Callable[[], Path], variable: str) -> Check:
    try:
        folder = find().absolute()
    except OSError as error:
        return name, False, f"{error.strerror}: set {variable} to a folder"
    try:
        existing = next(f for f in (folder, *folder.parents) if f.exists())
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"genprior")
        free = shutil.disk_usage(existing).free / 2**30
    except OSError as error:
        return name, False, (
            f"{folder} is not writable ({error.strerror}): set {variable} to another folder"
        )
    return name, free > 0.1, f"{folder}, {free:.1f} GiB free"


def _weights(name: str) -> Check:
    from genprior.api.factory import load_checkpoint
    from genprior.core.errors import CheckpointError
    from genprior.priors.checkpoint import fingerprint

    try:
        manifest = load_checkpoint(find_prior(name))[1]
    except CheckpointError as error:
        return name, False, str(error)
    return name, True, f"sha256 {fingerprint(manifest)[:16]}... verified"


def _self_tests() -> Iterator[Check]:
    try:
        import torch

        devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    except BROKEN:
        return
    for device in devices:
        yield f"denoise, {device}", *_run_test(lambda device=device: _denoise(device))


def _run_test(test: Callable[[], tuple[bool, str]]) -> tuple[bool, str]:
    try:
        return test()
    except (*BROKEN, ValueError, ArithmeticError, MemoryError) as error:
        return False, " ".join(str(error).split())


def _denoise(device: str) -> tuple[bool, str]:
    """Denoises a smooth image of 48 x 48 pixels; sound weights gain more than `MIN_GAIN`."""
    import torch

    from genprior import degrade, make_operator, restore

    ramp = torch.linspace(0.2, 0.8, 48)
    clean = torch.stack([ramp[:, None] * ramp, ramp[:, None] + 0 * ramp, 0 * ramp[:, None] + ramp])
    operator = make_operator("denoise")
    noisy = degrade(clean[None], operator, 0.1)
    started = time.perf_counter()
    result = restore(noisy, operator, "ddpm", noise_std=0.1, device=device)
    seconds = time.perf_counter() - started
    errors = [(x - clean).square().mean() for x in (noisy, result.image.cpu())]
    gain = 10 * (errors[0] / errors[1]).log10().item()
    text = f"{gain:.1f} dB better than the input (> {MIN_GAIN:.0f}), {seconds:.1f} s"
    return gain > MIN_GAIN, text
