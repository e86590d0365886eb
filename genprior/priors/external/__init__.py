"""Priors in the file formats of other packages: which format a path holds, and its loader.

A folder is recognised by its `config.json`, a file by the names of its tensors. No file is
unpickled to an object other than tensors and plain containers, so no code in it runs. A format
that needs settings which the weights do not show (the attention heads of guided diffusion, the
noise level of a DnCNN) reads them from `FILE.genprior.json` beside a file, or from
`genprior.json` in a folder.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.checksums import file_digest
from genprior.core.errors import CheckpointError
from genprior.priors.checkpoint import MANIFEST, steps_of
from genprior.priors.external.hub import PREFIX, download
from genprior.priors.external.spandrel_registry import recognises
from genprior.priors.external.weight_files import (
    SUFFIXES,
    Weights,
    folder_of,
    names_of,
    read_weights,
)
from genprior.priors.weights import embedded_priors


@dataclass(frozen=True)
class FileFormat:
    """How a file format is recognised, and its loader.

    Arguments:
        module: Module of the loader.
        names: Tensors that every file of the format has.
        loader: Name of the function that loads it.
        where: Keys under which the programs of the format save weights; empty for any.
        beside: Tensors beside the weights that the loader needs.
        wrapper: Prefix of all names in a file of a network inside another module; removed.
    """

    module: str
    names: tuple[str, ...]
    loader: str = "load"
    where: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    wrapper: str = ""

    def unwrapped(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors, without the prefix of the wrapper if all names have it."""
        if self.wrapper and all(key.startswith(self.wrapper) for key in tensors):
            return {key.removeprefix(self.wrapper): value for key, value in tensors.items()}
        return tensors

    def missing(self, tensors: dict[str, Tensor]) -> list[str]:
        """Returns the names of the format that the tensors of a file lack."""
        present = names_of(self.unwrapped(tensors))
        return [key for key in self.names if key not in present]


UNET = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight")
# A format that is meant only where no other one fits.
LEAST_SPECIFIC = "convolutional-denoiser"
FILE_FORMATS = {
    "guided-diffusion": FileFormat("guided_diffusion", UNET),
    "torchcfm": FileFormat("guided_diffusion", UNET, "load_flow", ("ema_model", "net_model")),
    "edm": FileFormat("edm_networks", ("map_layer0.weight", "map_layer1.weight"),
                      wrapper="model."),
    "drunet": FileFormat("drunet", ("m_head.weight", "m_body.0.res.0.weight", "m_tail.weight")),
    "ircnn": FileFormat("ircnn", ("0.model.0.weight", "24.model.12.weight")),
    "pytorch-examples-vae": FileFormat("dense_vae", (
        "fc1.weight", "fc21.weight", "fc22.weight", "fc3.weight", "fc4.weight")),
    "pytorch-examples-dcgan": FileFormat("dcgan", (
        "main.0.weight", "main.1.running_mean", "main.3.weight")),
    "stylegan2": FileFormat("stylegan2", (
        "style.1.weight", "input.input", "conv1.conv.modulation.weight", "to_rgb1.conv.weight"),
        beside=("latent_avg",)),
    "bf-cnn": FileFormat(
        "denoising_cnn", ("conv_layers.0.weight", "running_sd.0"), "load_bias_free"),
    "bf-dncnn": FileFormat(
        "denoising_cnn", ("first_layer.weight", "hidden_layer_list.0.weight",
                          "bn_layer_list.0.running_var", "last_layer.weight"), "load_bias_free"),
    LEAST_SPECIFIC: FileFormat("denoising_cnn", ("0.weight",)),
    "spandrel": FileFormat("spandrel_models", ()),
}
FOLDER_FORMATS = ("diffusers",)


def split_format(where: str | Path) -> tuple[str | None, str | Path]:
    """Returns the format that FORMAT:PATH names, or None, and the path or name behind it."""
    name, colon, rest = str(where).partition(":")
    if colon and rest and name in (*FILE_FORMATS, *FOLDER_FORMATS):
        return name, rest
    return None, where


def local_copy(where: str | Path) -> str | Path:
    """Returns the folder of a prior `hf:ORG/NAME[@REVISION]`, downloaded once; others as given.

    Raises:
        CheckpointError: It cannot be downloaded.
    """
    given, place = split_format(where)
    if not (isinstance(place, str) and place.startswith(PREFIX)):
        return where
    return f"{given}:{download(place)}" if given else download(place)


def is_external(where: str | Path) -> bool:
    """Returns whether a name or path is a prior in a format of another package."""
    if str(where) in embedded_priors():
        return False
    given, place = split_format(where)
    path = Path(place)
    if path.is_dir():
        ours = (path / MANIFEST).exists() or bool(steps_of(path))
        return given is not None or (not ours and folder_of(path) is not None)
    return path.is_file() and path.suffix in SUFFIXES


def is_latent_diffusion(where: str | Path) -> bool:
    """Returns whether a prior is a folder of latent diffusion, which takes a prompt.

    Raises:
        CheckpointError: It cannot be downloaded.
    """
    where = local_copy(where)
    path = Path(split_format(where)[1])
    return is_external(where) and path.is_dir() and _folder_module(path) == "latent_diffusion"


def written(where: str | Path) -> int:
    """Returns the time of the last change of the files of a prior, in nanoseconds."""
    return max(file.stat().st_mtime_ns for file in _files(Path(split_format(where)[1])))


def load(where: str | Path, **told: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Loads a prior in a format of another package.

    Arguments:
        where: A folder of diffusers, or a file of weights (.pt, .pth, .safetensors); or
            FORMAT:PATH, which names the format.
        told: Settings that the files do not show; they replace those of `genprior.json`.

    Returns:
        The prior (float32, evaluation mode, on the CPU), and a manifest: its format, what was
        read or assumed about it, and the checksum of each file.

    Raises:
        CheckpointError: The format is unknown or ambiguous, the file is damaged or would need code
            to be run, a setting does not fit, or an optional package is missing.
    """
    given, place = split_format(where)
    path = Path(place)
    with torch.random.fork_rng(devices=[]):  # the initial random weights are discarded
        if path.is_dir():
            module, loader, tensors = _folder_module(path), "load", {}
        else:
            found = read_weights(path)
            tensors = found.tensors
            name = given or _format(path, found)
            if name in FOLDER_FORMATS:
                path, module, loader = path.parent, _folder_module(path.parent), "load"
            else:
                kind = FILE_FORMATS[name]
                module, loader = kind.module, kind.loader
                missing = kind.missing(tensors)
                if missing:
                    raise CheckpointError(
                        f"{path}: is no file of {name}: it has no {missing[0]}; choose another "
                        f"format"
                    )
                tensors = kind.unwrapped(tensors)
                tensors |= {key: found.beside[key] for key in kind.beside if key in found.beside}
        load_format = getattr(import_module(f"genprior.priors.external.{module}"), loader)
        prior, about = load_format(path, tensors, told)
    files = {
        str(file.relative_to(path)) if path.is_dir() else file.name:
            {"sha256": file_digest(file), "bytes": file.stat().st_size}
        for file in _files(path)
    }
    return prior.float().eval().requires_grad_(False), {**about, "files": files}


def _folder_module(path: Path) -> str:
    """Returns the module that loads a folder of diffusers: in pixel space, or in latents."""
    return "latent_diffusion" if (path / "vae").is_dir() else "diffusers_unet"


def _format(path: Path, found: Weights) -> str:
    """Returns the format of a file.

    Raises:
        CheckpointError: No format fits, or several do and the file does not show which it is.
    """
    fitting = [name for name, kind in FILE_FORMATS.items()
               if kind.names and not kind.missing(found.tensors)]
    fitting = [name for name in fitting if name != LEAST_SPECIFIC] or fitting
    shown = [name for name in fitting if found.where in FILE_FORMATS[name].where]
    if set(fitting) == {"guided-diffusion", "torchcfm"} and not shown:
        shown = _of_same_unet(path, found)
    if shown or len(fitting) == 1:
        return (shown or fitting)[0]
    if fitting:
        raise CheckpointError(
            f"{path}: may be a file of {' or of '.join(fitting)}, whose networks are the same: "
            f"give --format, or {fitting[0]}:{path} in Python"
        )
    if recognises(found.tensors):
        return "spandrel"
    if "conv_in.weight" in found.tensors:
        if (path.parent / "config.json").exists():
            return "diffusers"
        raise CheckpointError(
            f"{path}: holds the network of a diffusers folder, whose config.json describes it: "
            f"give the folder"
        )
    raise CheckpointError(
        f"{path}: the names of its tensors ({', '.join(list(found.tensors)[:3])} ...) fit "
        f"no known format ({', '.join(FILE_FORMATS)}, a diffusers folder): if it holds the "
        f"weights of a prior of genprior, convert it with genprior import {path} --prior NAME "
        f"-o FOLDER"
    )


def _of_same_unet(path: Path, found: Weights) -> list[str]:
    """Returns guided-diffusion if a file shows it: a learned variance, or the noise schedule."""
    inputs, outputs = (found.tensors[key].shape[index] for key, index in
                       (("input_blocks.0.0.weight", 1), ("out.2.weight", 0)))
    shown = outputs == 2 * inputs or "sqrt_alphas_cumprod" in found.tensors
    return ["guided-diffusion"] if shown else []


def _files(path: Path) -> list[Path]:
    """Returns the files that determine a prior, in order."""
    if path.is_file():
        settings = path.with_name(f"{path.name}.genprior.json")
        return [path, *([settings] if settings.exists() else [])]
    return sorted(
        file for file in path.rglob("*")
        if file.is_file() and file.suffix in (*SUFFIXES, ".json")
    )
