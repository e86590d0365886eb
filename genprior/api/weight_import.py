"""Import of PyTorch weight files (.pt, .pth) as checkpoints, without running code in them.

Keys, shapes and types are compared with those of the prior before memory is allocated for the
weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genprior.core.atomic_files import new_folder
from genprior.core.errors import CheckpointError, SettingError
from genprior.priors.arguments import shapes_of
from genprior.priors.checkpoint import save_checkpoint
from genprior.priors.external.weight_files import check_finite, open_weights
from genprior.registry import PRIORS, lookup

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
    found = open_weights(file)
    where, tensors = found.where, found.tensors
    cls = lookup(PRIORS, prior, "prior")
    try:
        expected = shapes_of(cls, config, len(tensors))
    except (TypeError, ValueError) as error:
        raise SettingError(f"prior {prior!r}: {error}: give the right --set NAME=VALUE") from error
    _check_fit(file, prior, tensors, expected)
    full = {key: tensor.float() for key, tensor in tensors.items()}
    for key, tensor in tensors.items():
        check_finite(file, key, tensor)
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
