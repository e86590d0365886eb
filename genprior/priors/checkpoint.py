"""Checkpoints: a folder of safetensors files and a manifest with their checksums.

    model.safetensors   weights of the prior (their moving average, if there is one); shipped
                        weights are split into files of at most 16 MB: model-2.safetensors, ...
    state.safetensors   further tensors needed to resume training (absent in shipped weights)
    manifest.json       prior, configuration, provenance, size and sha256 of each file

The manifest is written last: a folder without one is not a checkpoint. No pickle is used.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load, save
from torch import Tensor

from genprior.core.atomic_files import unfinished, write_atomic
from genprior.core.errors import CheckpointError
from genprior.priors.weights import EMBEDDED

MANIFEST, MODEL, STATE = "manifest.json", "model.safetensors", "state.safetensors"
LARGEST = 16 * 10**6
STEP = re.compile(r"step-\d{8,}")


def save_checkpoint(
    folder: Path,
    prior: str,
    config: Mapping[str, Any],
    model: Mapping[str, Tensor],
    state: Mapping[str, Tensor] | None = None,
    about: Mapping[str, Any] | None = None,
    largest: int | None = None,
) -> None:
    """Writes a checkpoint; an interrupted write leaves no manifest.

    Arguments:
        folder: Target folder; created if it does not exist.
        prior: Name of the prior in the registry.
        config: Constructor arguments of the prior, JSON types.
        model: Its tensors by name.
        state: Further tensors needed to resume training.
        about: Provenance, JSON types: data, steps, seed, measured quality and so on.
        largest: Maximum bytes of tensors per file; None writes the whole model to one file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    files = {}
    parts = dict(zip(_model_file_names(), _split_by_size(model, largest), strict=False))
    for name, tensors in (parts | ({STATE: state} if state is not None else {})).items():
        data = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        write_atomic(folder / name, lambda file, data=data: file.write(data))
        files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest = {"schema": 1, "prior": prior, "config": dict(config), "files": files}
    text = json.dumps({**manifest, **(about or {})}, indent=1) + "\n"
    write_atomic(folder / MANIFEST, lambda file: file.write(text.encode()))


def _model_file_names() -> Iterator[str]:
    yield MODEL
    yield from (f"model-{k}.safetensors" for k in itertools.count(2))


def _split_by_size(model: Mapping[str, Tensor], largest: int | None) -> list[dict[str, Tensor]]:
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in model.items():
        size += value.nbytes
        if parts[-1] and largest is not None and size > largest:
            parts.append({})
            size = value.nbytes
        parts[-1][key] = value
    return parts


def read_model(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns all tensors of a model; arguments and errors as in `read_tensors`."""
    names = [name for name in manifest["files"] if name != STATE]
    parts = [read_tensors(folder, manifest, name) for name in names]
    return {key: value for part in parts for key, value in part.items()}


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Returns the sha256 of the model file; of several files, the sha256 of their checksums."""
    sums = [about["sha256"] for name, about in manifest["files"].items() if name != STATE]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def remove_checkpoint(folder: Path) -> None:
    """Removes a checkpoint, its manifest first, so that no incomplete checkpoint is left."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for file in (*folder.glob("*.safetensors"), *unfinished(folder)):
        file.unlink()
    with suppress(OSError):  # the folder holds other files
        folder.rmdir()


def steps_of(run: Path) -> list[Path]:
    """Returns the checkpoint folders of a training run, complete or not, the newest last."""
    folders = [path for path in run.glob("step-*") if STEP.fullmatch(path.name) and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("step-")))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of a checkpoint folder.

    Raises:
        CheckpointError: There is no manifest, or it is not readable.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if manifest["schema"] != 1 or MODEL not in manifest["files"]:
            raise KeyError("schema")
        manifest["prior"], manifest["config"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder} contains no {MANIFEST}: it is not a checkpoint") from None
    except (ValueError, KeyError, TypeError, OSError):
        raise CheckpointError(f"{path} is not a readable checkpoint manifest") from None
    return manifest


def read_tensors(folder: Path, manifest: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Returns the tensors of one file of a checkpoint, after checking its sha256.

    Arguments:
        folder: The checkpoint folder.
        manifest: Its manifest.
        name: Name of the file.

    Raises:
        CheckpointError: The file is missing or does not match the checksum in the manifest.
    """
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read weights {path}: {error.strerror}") from None
    expected = manifest["files"][name]["sha256"]
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise CheckpointError(
            f"weights {path} are corrupt: sha256 is {actual}, expected {expected}; "
            f"{'install genprior again' if EMBEDDED in path.parents else 'restore the file'}"
        )
    try:
        return load(data)
    except safetensors.SafetensorError:
        raise CheckpointError(f"weights {path} are not a safetensors file") from None


def newest(folder: Path) -> Path:
    """Returns the folder itself if it is a checkpoint, else the newest complete one of the run.

    Raises:
        CheckpointError: There is no complete checkpoint.
    """
    if (folder / MANIFEST).exists():
        return folder
    complete = [path for path in steps_of(folder) if (path / MANIFEST).exists()]
    if not complete:
        raise CheckpointError(f"no checkpoint in {folder}: give a folder that contains {MANIFEST}")
    return complete[-1]


def pack(source: Path, target: Path, about: Mapping[str, Any]) -> None:
    """Copies a checkpoint in half precision, without the state for resuming training.

    Vectors keep their precision: they are small, and half precision could underflow a variance.

    Arguments:
        source: Folder of a checkpoint or of a training run.
        target: Folder of the new checkpoint.
        about: Entries to add to its manifest.

    Raises:
        CheckpointError: There is no checkpoint, or it is corrupt.
        OverflowError: A weight is too large for half precision.
    """
    source = newest(source)
    manifest = read_manifest(source)
    tensors = read_model(source, manifest)
    half = {
        key: t.half() if t.is_floating_point() and t.ndim > 1 else t
        for key, t in tensors.items()
    }
    for key, tensor in half.items():
        if not tensor.isfinite().all():
            raise OverflowError(f"{key} is too large for half precision: keep float32")
    prior, config = manifest.pop("prior"), manifest.pop("config")
    rest = {key: value for key, value in manifest.items() if key not in ("schema", "files")}
    save_checkpoint(target, prior, config, half, about={**rest, **about}, largest=LARGEST)
