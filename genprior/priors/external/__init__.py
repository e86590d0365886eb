"""Priors in the file formats of other packages: which format a path holds, and its loader.

A folder is recognised by its `config.json`, a file by the names of its tensors. No file is
unpickled to an object other than tensors and plain containers, so no code in it runs. A format
that needs settings which the weights do not show (the attention heads of guided diffusion, the
noise level of a DnCNN) reads them from `FILE.genprior.json` beside a file, or from
`genprior.json` in a folder.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.checksums import file_digest
from genprior.core.errors import CheckpointError
from genprior.priors.checkpoint import MANIFEST, steps_of
from genprior.priors.external.hub import PREFIX, download
from genprior.priors.external.weight_files import SUFFIXES, folder_of, names_of, read_tensors
from genprior.priors.weights import embedded_priors

# Loaders of files: format, its module, and tensors that every file of the format has.
FILE_FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "guided-diffusion": ("guided_diffusion", ("time_embed.0.weight", "input_blocks.0.0.weight",
                                              "middle_block.0.in_layers.0.weight")),
    "drunet": ("drunet", ("m_head.weight", "m_body.0.res.0.weight", "m_tail.weight")),
    "pytorch-examples-vae": ("dense_vae", ("fc1.weight", "fc21.weight", "fc22.weight",
                                           "fc3.weight", "fc4.weight")),
    "pytorch-examples-dcgan": ("dcgan", ("main.0.weight", "main.1.running_mean",
                                         "main.3.weight")),
    "convolutional-denoiser": ("denoising_cnn", ("0.weight",)),
}
FOLDER_MODULE = "diffusers_unet"


def local_copy(where: str | Path) -> str | Path:
    """Returns the folder of a prior `hf:ORG/NAME[@REVISION]`, downloaded once; others as given.

    Raises:
        CheckpointError: It cannot be downloaded.
    """
    return download(where) if isinstance(where, str) and where.startswith(PREFIX) else where


def is_external(where: str | Path) -> bool:
    """Returns whether a name or path is a prior in a format of another package."""
    if str(where) in embedded_priors():
        return False
    path = Path(where)
    if path.is_dir():
        ours = (path / MANIFEST).exists() or bool(steps_of(path))
        return not ours and folder_of(path) is not None
    return path.is_file() and path.suffix in SUFFIXES


def written(path: Path) -> int:
    """Returns the time of the last change of the files of a prior, in nanoseconds."""
    return max(file.stat().st_mtime_ns for file in _files(path))


def load(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Loads a prior in a format of another package.

    Arguments:
        path: A folder of diffusers, or a file of weights (.pt, .pth, .safetensors).

    Returns:
        The prior (float32, evaluation mode, on the CPU), and a manifest: its format, what was
        read or assumed about it, and the checksum of each file.

    Raises:
        CheckpointError: The format is unknown, the file is damaged or would need code to be run,
            or an optional package is missing.
    """
    with torch.random.fork_rng(devices=[]):  # the initial random weights are discarded
        if path.is_dir():
            loader, tensors = FOLDER_MODULE, {}
        else:
            tensors = read_tensors(path)
            loader = _loader(path, tensors)
            if loader == FOLDER_MODULE:
                path = path.parent
        module = import_module(f"genprior.priors.external.{loader}")
        prior, about = module.load(path, tensors)
    files = {
        str(file.relative_to(path)) if path.is_dir() else file.name:
            {"sha256": file_digest(file), "bytes": file.stat().st_size}
        for file in _files(path)
    }
    return prior.float().eval().requires_grad_(False), {**about, "files": files}


def _loader(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Returns the module that loads a file with these tensors."""
    names = names_of(tensors)
    for module, needed in FILE_FORMATS.values():
        if all(name in names for name in needed):
            return module
    if "conv_in.weight" in tensors:
        if (path.parent / "config.json").exists():
            return FOLDER_MODULE
        raise CheckpointError(
            f"{path}: holds the network of a diffusers folder, whose config.json describes it: "
            f"give the folder"
        )
    raise CheckpointError(
        f"{path}: the names of its tensors ({', '.join(list(tensors)[:3])} ...) fit no known "
        f"format ({', '.join(FILE_FORMATS)}, a diffusers folder): if it holds the weights of a "
        f"prior of genprior, convert it with genprior import {path} --prior NAME -o FOLDER"
    )


def _files(path: Path) -> list[Path]:
    """Returns the files that determine a prior, in order."""
    if path.is_file():
        settings = path.with_name(f"{path.name}.genprior.json")
        return [path, *([settings] if settings.exists() else [])]
    return sorted(
        file for file in path.rglob("*")
        if file.is_file() and file.suffix in (*SUFFIXES, ".json")
    )
