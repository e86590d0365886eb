"""Import of PyTorch weight files (.pt, .pth) as checkpoints, without running code in them.

The zip archive is checked first: its entries are not compressed, so that they are no larger than
the file, and have the checksums (CRC) that torch wrote. Then the file is memory-mapped: keys,
shapes and types are compared with those of the prior before memory is allocated for the weights.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genprior.core.atomic_files import new_folder
from genprior.core.errors import CheckpointError, SettingError
from genprior.priors.arguments import shapes_of
from genprior.priors.checkpoint import save_checkpoint
from genprior.priors.external.weight_files import UNREADABLE, check_archive
from genprior.registry import PRIORS, lookup

# Common keys of the weights in a file that holds more, in order of preference.
WEIGHT_KEYS = ("ema", "params_ema", "model_ema", "ema_state_dict", "params", "state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
# Types that are converted to float32; float8 has too few operations in torch.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def import_weights(file: Path, folder: Path, prior: str, config: Mapping[str, Any]) -> str:
    """Converts a file written by `torch.save` to a checkpoint.

    Arguments:
        file: File of a dictionary of tensors, or of a dictionary that holds one ("ema",
            "model" ...).
        folder: Folder of the new checkpoint. It appears when it is complete.
        prior: Name of the prior.
        config: Constructor arguments of the prior.

    Returns:
        Key of the weights in the file, "" for the file itself.

    Raises:
        CheckpointError: The file cannot be read without running code, or does not fit the prior.
        OSError: The folder exists, or cannot be written.
    """
    where, tensors = _tensors(file)
    cls = lookup(PRIORS, prior, "prior")
    try:
        expected = shapes_of(cls, config, len(tensors))
    except (TypeError, ValueError) as error:
        raise SettingError(f"prior {prior!r}: {error}: give the right --set NAME=VALUE") from error
    _check_fit(file, prior, tensors, expected)
    full = {key: tensor.float() for key, tensor in tensors.items()}
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{file}: {key} holds NaN or infinite numbers: train it again")
        if not full[key].isfinite().all():
            raise CheckpointError(
                f"{file}: {key} holds numbers that are too large for float32: train it again"
            )
    about = {"imported": {"file": file.name, "bytes": file.stat().st_size, "where": where}}
    with torch.device("meta"):
        complete = dict(cls(**config).config)
    with new_folder(folder) as made:
        save_checkpoint(made, prior, complete, full, about=about)
    return where


def _tensors(file: Path) -> tuple[str, dict[str, Tensor]]:
    try:
        check_archive(file)
        with warnings.catch_warnings(action="ignore"):  # about tensors that are refused below
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file: check the name") from None
    except UNREADABLE as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise CheckpointError(
            f"{file}: holds more than weights, is damaged, or older than torch 1.6 "
            f"({reason:.160}): save its state_dict alone, with torch.save. Nothing in it was run"
        ) from error
    where = ""
    if isinstance(found, dict) and not _is_weights(found):
        where = next((name for name in WEIGHT_KEYS if _is_weights(found.get(name))), "")
        found = found.get(where)
    if not _is_weights(found):
        raise CheckpointError(
            f"{file}: holds no dictionary of tensors, nor one under "
            f"{', '.join(WEIGHT_KEYS)}: save its state_dict with torch.save"
        )
    tensors: dict[str, Tensor] = {}
    originals: dict[str, str] = {}
    for key, tensor in found.items():
        name = _without_prefixes(key)
        if name in tensors:
            raise CheckpointError(
                f"{file}: holds {name} twice, as {originals[name]} and as {key}: save one of them"
            )
        tensors[name], originals[name] = tensor, key
    return where, tensors


def _is_weights(found: object) -> bool:
    return isinstance(found, dict) and bool(found) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    )


def _without_prefixes(key: str) -> str:
    """Returns a key without the prefixes that wrappers add."""
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _check_fit(
    file: Path, prior: str, tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size]
) -> None:
    missing, extra = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    if missing or extra:
        raise CheckpointError(
            f"{file}: does not fit prior {prior!r}: {_count_keys(missing, 'missing')}; "
            f"{_count_keys(extra, 'unknown')}: give the right --set NAME=VALUE"
        )
    for key, tensor in tensors.items():
        dense = tensor.layout == torch.strided and tensor.dtype in FLOATS and not tensor.is_meta
        if tensor.shape != expected[key] or not dense:
            empty = " without values" if tensor.is_meta else ""
            raise CheckpointError(
                f"{file}: {key} is {tensor.dtype}{empty} of shape {tuple(tensor.shape)}, prior "
                f"{prior!r} has float16, bfloat16, float32 or float64 of "
                f"{tuple(expected[key])}: give the right --set NAME=VALUE, or convert it"
            )


def _count_keys(keys: list[str], what: str) -> str:
    examples = f" ({', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''})" if keys else ""
    return f"{len(keys)} keys {what}{examples}"
