"""Reading of foreign weight files (.pt, .pth, .safetensors) and settings, without running code.

The zip archive of `torch.save` is checked first: its entries are not compressed, so that they are
no larger than the file, and have the checksums (CRC) that torch wrote. Then it is memory-mapped:
names, shapes and types can be compared before memory is allocated for the weights.
"""

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from genprior.core.errors import CheckpointError
from genprior.core.records import read_json

SUFFIXES = (".pt", ".pth", ".safetensors", ".bin", ".ckpt")
# Common keys of the weights in a file that holds more, in order of preference.
WEIGHT_KEYS = ("ema", "params_ema", "model_ema", "ema_state_dict", "ema_model", "g_ema", "params",
               "state_dict", "net_model", "model")
PREFIXES = ("module.", "_orig_mod.")
# Unpickling damaged bytes raises any of these; forbidden objects raise an UnpicklingError.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError,
    AttributeError, TypeError, ImportError, ArithmeticError, AssertionError, struct.error,
    zipfile.BadZipFile, zlib.error,
)
# The pickled dictionary holds names and shapes only; this is enough for a million tensors.
LARGEST_PICKLE = 2**28
CONFIG, PIPELINE, SETTINGS = "config.json", "model_index.json", "genprior.json"

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Weights:
    """Weights in a file.

    Arguments:
        tensors: Tensors by name, on the CPU, in the types of the file. Names lack the prefixes
            that wrappers add.
        where: Key of the weights in the file, "" for the file itself.
        beside: Tensors beside the weights, such as "latent_avg" of StyleGAN2.
    """

    tensors: dict[str, Tensor]
    where: str = ""
    beside: dict[str, Tensor] = field(default_factory=dict)


def open_weights(path: Path) -> Weights:
    """Opens a file of weights; the values of a zip archive of torch are not read yet.

    Arguments:
        path: A safetensors file, or a file of `torch.save` that holds a dictionary of tensors, or
            one under a common key such as "ema" or "state_dict".

    Raises:
        CheckpointError: The file does not exist, is damaged, holds objects that only code in it
            could build, no weights, or weights twice.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")
        found = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file: check the name") from None
    except (safetensors.SafetensorError, *UNREADABLE) as error:
        raise CheckpointError(_refusal(path, error)) from error
    where, beside = "", {}
    if isinstance(found, dict) and found and all(
        isinstance(key, str) and key.isdecimal() and _is_weights(value)
        for key, value in found.items()
    ):  # IRCNN: the networks of several noise levels
        found = {f"{number}.{key}": tensor for number, weights in found.items()
                 for key, tensor in weights.items()}
    if isinstance(found, dict) and not _is_weights(found):
        where = next((key for key in WEIGHT_KEYS if _is_weights(found.get(key))), "")
        beside = {key: value for key, value in found.items()
                  if isinstance(key, str) and isinstance(value, Tensor)}
        found = found.get(where)
    if not _is_weights(found):
        raise CheckpointError(
            f"{path}: holds no dictionary of tensors, nor one under {', '.join(WEIGHT_KEYS)}: "
            f"save its state_dict with torch.save"
        )
    tensors: dict[str, Tensor] = {}
    originals: dict[str, str] = {}
    for key, tensor in found.items():
        name = _without_prefixes(key)
        if name in tensors:
            raise CheckpointError(
                f"{path}: holds {name} twice, as {originals[name]} and as {key}: save one of them"
            )
        tensors[name], originals[name] = tensor, key
    return Weights(tensors, where, beside)


def read_weights(path: Path) -> Weights:
    """Opens a file of weights as `open_weights` does, and checks that they are numbers.

    Raises:
        CheckpointError: Also if weights are not dense, have 8 bits, or are not finite.
    """
    found = open_weights(path)
    for key, tensor in [*found.tensors.items(), *found.beside.items()]:
        small = tensor.is_floating_point() and tensor.itemsize == 1
        if tensor.is_meta or tensor.layout != torch.strided or small:
            kind = "without values" if tensor.is_meta else f"{tensor.dtype}, {tensor.layout}"
            raise CheckpointError(f"{path}: {key} is {kind}: save dense numbers of 16 or 32 bits")
        check_finite(path, key, tensor)
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of `read_weights` by name."""
    return read_weights(path).tensors


def check_finite(path: Path, key: str, tensor: Tensor) -> None:
    """Raises CheckpointError if a tensor holds NaN or infinite numbers."""
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise CheckpointError(f"{path}: {key} holds NaN or infinite numbers: train it again")


class NoSettings(msgspec.Struct, forbid_unknown_fields=True):
    """Settings of a format whose files show all that is needed."""


def read_settings(path: Path, kind: type[Kind], told: Mapping[str, Any]) -> Kind:
    """Returns what the weights do not show, from the settings file of a prior and its user.

    Arguments:
        path: File of weights, with settings in FILE.genprior.json; or a folder, in genprior.json.
        kind: A `msgspec.Struct` whose fields have defaults; these hold where nothing is set.
        told: Settings that replace those of the file.

    Raises:
        CheckpointError: The settings are no JSON, or do not fit.
    """
    folder = path.is_dir()
    settings = path / SETTINGS if folder else path.with_name(f"{path.name}.{SETTINGS}")
    stored: dict[str, Any] = {}
    names = ", ".join(kind.__annotations__) or "nothing"
    if settings.exists():
        try:
            read_json(settings, kind)
            stored = read_json(settings, dict[str, Any])
        except ValueError as error:
            raise CheckpointError(f"{settings}: {error}: it may set {names}") from error
    try:
        return msgspec.convert({**stored, **told}, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"{path}: the settings of the prior do not fit it: {error}; this one may set {names}"
        ) from error


def folder_of(path: Path) -> Path | None:
    """Returns the folder of the network in a diffusers folder, or None if it is no such folder."""
    for folder in (path / "unet", path):
        if (folder / CONFIG).is_file():
            return folder
    return path if (path / PIPELINE).is_file() else None


def check_no_transformer(path: Path, where: object) -> None:
    """Raises CheckpointError if a folder of diffusers holds or names a transformer.

    Arguments:
        path: The folder.
        where: What the user typed for it.
    """
    name = "transformer"
    try:
        index = read_json(path / PIPELINE, dict[str, Any])
    except (OSError, ValueError):
        index = {}
    if (path / name).is_dir() or index.get(name):
        kind = f" of a {index['_class_name']}" if "_class_name" in index else ""
        raise CheckpointError(
            f"{where}: its network{kind} is a transformer, as of SD3 and FLUX, and genprior loads "
            f"a UNet2DModel or UNet2DConditionModel: choose another model"
        )


def names_of(tensors: Mapping[str, Tensor]) -> set[str]:
    """Returns the names of tensors; of layers numbered under one common name, without it."""
    numbered = [re.fullmatch(r"(?:\w+\.)?(\d+\.\w+)", key) for key in tensors]
    if len({key.partition(".")[0] for key in tensors}) == 1 and all(numbered):
        return {match[1] for match in numbered if match} | set(tensors)
    return set(tensors)


def check_fit(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Checks that tensors are those of a network, by name and shape.

    Raises:
        CheckpointError: They are not; the message names the first that differ.
    """
    common = sorted(expected.keys() & tensors)
    defects = {
        "are missing": sorted(expected.keys() - tensors),
        "are unknown": sorted(tensors.keys() - expected),
        "have other shapes": [k for k in common if tensors[k].shape != expected[k].shape],
    }
    for what, keys in defects.items():
        if keys:
            more = " ..." if len(keys) > 3 else ""
            raise CheckpointError(
                f"{path}: {len(keys)} tensors {what} ({', '.join(keys[:3])}{more}): "
                f"the network is another variant, which is not supported"
            )


def check_archive(file: Path) -> None:
    """Checks the zip archive that torch writes: nothing compressed, nothing damaged.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a regular file, or holds entries that torch does not write.
        zipfile.BadZipFile: It is damaged, or not a zip archive.
    """
    size = file.stat().st_size
    if not file.is_file():
        raise ValueError("it is not a regular file")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed, which torch does not do")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its entries are larger than the file")
        if any(e.file_size > LARGEST_PICKLE for e in entries if e.filename.endswith(".pkl")):
            raise ValueError(f"its pickle has more than {LARGEST_PICKLE} bytes")
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")


def _unpickle(path: Path) -> Any:
    archive = zipfile.is_zipfile(path)  # files of torch before 1.6 are none
    if archive:
        check_archive(path)
    with warnings.catch_warnings(action="ignore"):  # about tensors that are refused later
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)


def _refusal(path: Path, error: BaseException) -> str:
    reason = " ".join(str(error).split())
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    what = (
        f"holds the Python object {named[1]}, which only running code could rebuild" if named else
        f"cannot be read as weights: it holds more than weights, or is damaged "
        f"({reason.partition('. ')[0]:.160})"
    )
    return (
        f"{path}: {what}; nothing in it was run: if you trust it, load it and save its "
        f"state_dict alone, with torch.save"
    )


def _is_weights(found: object) -> bool:
    return isinstance(found, dict) and bool(found) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    )


def _without_prefixes(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key
