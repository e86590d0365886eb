"""doctor: whether this installation works, and what to do where it does not."""

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
# What a broken installation raises: a missing module, a library that does not load, or an
# operator that another build of torch would have.
BROKEN = (ImportError, OSError, RuntimeError)
LIBRARIES = ("numpy", "deepinv", "scikit-image", "pillow", "tifffile", "safetensors", "click")
GAIN = 6.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def doctor(as_json: bool) -> None:
    """Check the installation: libraries, devices, disk, weights, and a small restoration."""
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
        return "torch", False, f"{_version('torch')} cannot be imported ({error}): install it anew"
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    threads = f"{torch.get_num_threads()} threads"
    return "torch", True, f"{torch.__version__}, built for {build}, {threads}"


def _torchvision() -> Check:
    try:
        importlib.import_module("torchvision")
    except BROKEN as error:
        text = f"{' '.join(str(error).split()):.80}"
        if isinstance(error, OSError) and error.errno:  # a file or a folder, not a library
            return "torchvision", False, f"cannot be imported ({text}): mend that first"
        return "torchvision", False, (
            f"{_version('torchvision')} does not go with torch {_version('torch')} "
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
        return name, False, f"{error.strerror}: set {variable}"
    try:
        there = next(f for f in (folder, *folder.parents) if f.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"genprior")
        free = shutil.disk_usage(there).free / 2**30
    except OSError as error:
        return name, False, f"{folder} cannot be written ({error.strerror}): set {variable}"
    return name, free > 0.1, f"{folder}, {free:.1f} GiB free"


def _weights(name: str) -> Check:
    from genprior.api.factory import load_checkpoint
    from genprior.core.errors import CheckpointError
    from genprior.priors.checkpoint import fingerprint

    try:
        manifest = load_checkpoint(find_prior(name), anew=True)[1]
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
        yield f"denoise, {device}", *_tried(lambda device=device: _denoise(device))


def _tried(work: Callable[[], tuple[bool, str]]) -> tuple[bool, str]:
    try:
        return work()
    except (*BROKEN, ValueError, ArithmeticError, MemoryError) as error:
        return False, " ".join(str(error).split())


def _denoise(device: str) -> tuple[bool, str]:
    """Denoises a smooth picture of 48 x 48 pixels, which the weights do well."""
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
    return gain > GAIN, f"{gain:.1f} dB better than the input (> {GAIN:.0f}), {seconds:.1f} s"
