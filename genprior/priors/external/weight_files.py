"""Reading of foreign weight files (.pt, .pth, .safetensors) and settings, without running code."""

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from genprior.core.errors import CheckpointError
from genprior.core.records import read_json

SUFFIXES = (".pt", ".pth", ".safetensors", ".bin", ".ckpt")
# Common keys of the weights in a file that holds more, in order of preference.
WEIGHT_KEYS = ("ema", "params_ema", "model_ema", "ema_state_dict", "params", "state_dict", "model")
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the weights in a file; keys lose the prefixes that wrappers add.

    Arguments:
        path: A safetensors file, or a file of `torch.save` that holds a dictionary of tensors, or
            one under a common key such as "ema" or "state_dict".

    Returns:
        Tensors by name, on the CPU, in the types of the file.

    Raises:
        CheckpointError: The file is damaged, holds objects that only code in it could build, or
            no weights, or weights that are not finite.
    """
    try:
        found = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except (safetensors.SafetensorError, *UNREADABLE) as error:
        raise CheckpointError(_refusal(path, error)) from error
    if isinstance(found, dict) and not _is_weights(found):
        found = next((found[key] for key in WEIGHT_KEYS if _is_weights(found.get(key))), None)
    if not _is_weights(found):
        raise CheckpointError(
            f"{path}: holds no dictionary of tensors, nor one under {', '.join(WEIGHT_KEYS)}: "
            f"save its state_dict with torch.save"
        )
    tensors = {_without_prefixes(key): tensor for key, tensor in found.items()}
    for key, tensor in tensors.items():
        small = tensor.is_floating_point() and tensor.itemsize == 1
        if tensor.is_meta or tensor.layout != torch.strided or small:
            kind = "without values" if tensor.is_meta else f"{tensor.dtype}, {tensor.layout}"
            raise CheckpointError(f"{path}: {key} is {kind}: save dense numbers of 16 or 32 bits")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {key} holds NaN or infinite numbers")
    return tensors


def read_settings(path: Path, kind: type[Kind]) -> Kind:
    """Reads what the weights do not show, from the settings file of a prior.

    Arguments:
        path: File of weights, with settings in FILE.genprior.json; or a folder, in genprior.json.
        kind: A `msgspec.Struct` whose fields have defaults; these hold if there is no such file.

    Raises:
        CheckpointError: The settings are no JSON, or do not fit.
    """
    folder = path.is_dir()
    settings = path / SETTINGS if folder else path.with_name(f"{path.name}.{SETTINGS}")
    if not settings.exists():
        return kind()
    try:
        return read_json(settings, kind)
    except ValueError as error:
        fields = ", ".join(kind.__annotations__)
        raise CheckpointError(f"{settings}: {error}: it may set {fields}") from error


def folder_of(path: Path) -> Path | None:
    """Returns the folder of the network in a diffusers folder, or None if it is no such folder."""
    for folder in (path / "unet", path):
        if (folder / CONFIG).is_file():
            return folder
    return path if (path / PIPELINE).is_file() else None


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
    if zipfile.is_zipfile(path):  # files of torch before 1.6 are none
        check_archive(path)
    with warnings.catch_warnings(action="ignore"):  # about tensors that are refused later
        return torch.load(path, map_location="cpu", weights_only=True)


def _refusal(path: Path, error: BaseException) -> str:
    reason = " ".join(str(error).split())
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    if named or isinstance(error, pickle.UnpicklingError):
        what = f"the Python object {named[1]}" if named else "more than tensors, or is damaged"
        return (
            f"{path}: holds {what}, which only running code could rebuild; nothing in it was run: "
            f"if you trust it, load it and save its state_dict alone, with torch.save"
        )
    return f"{path}: cannot be read as weights ({reason:.160}): it may be damaged or incomplete"


def _is_weights(found: object) -> bool:
    return isinstance(found, dict) and bool(found) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    )


def _without_prefixes(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key
