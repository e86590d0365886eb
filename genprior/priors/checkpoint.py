"""Checkpoints: a folder of safetensors files and a manifest that vouches for them.

    model.safetensors   weights of the prior (the running average, where there is one); those that
                        ship are in files of at most 16 MB, the next is model-2.safetensors
    state.safetensors   what a resumed training needs besides (absent in shipped weights)
    manifest.json       prior, configuration, provenance, size and sha256 of each file

The manifest is written last: a folder without one is not a checkpoint. Nothing is pickled.
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
from genprior.core.cache import is_verified, remember
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
    """Writes a checkpoint; a killed run leaves either the whole of it or no manifest.

    Arguments:
        folder: Where it goes; made if it does not exist.
        prior: Name of the prior in the registry.
        config: Constructor arguments of the prior, JSON types.
        model: Its tensors by name.
        state: Tensors that a resumed training needs.
        about: Provenance, JSON types: data, steps, seed, measured quality and so on.
        largest: Bytes of tensors in one file, at most; None puts the whole model in one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    files = {}
    parts = dict(zip(_names(), _split(model, largest), strict=False))
    for name, tensors in (parts | ({STATE: state} if state is not None else {})).items():
        data = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        write_atomic(folder / name, lambda file, data=data: file.write(data))
        files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest = {"schema": 1, "prior": prior, "config": dict(config), "files": files}
    text = json.dumps({**manifest, **(about or {})}, indent=1) + "\n"
    write_atomic(folder / MANIFEST, lambda file: file.write(text.encode()))


def _names() -> Iterator[str]:
    yield MODEL
    yield from (f"model-{k}.safetensors" for k in itertools.count(2))


def _split(model: Mapping[str, Tensor], largest: int | None) -> list[dict[str, Tensor]]:
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in model.items():
        size += value.nbytes
        if parts[-1] and largest is not None and size > largest:
            parts.append({})
            size = value.nbytes
        parts[-1][key] = value
    return parts


def read_model(folder: Path, manifest: Mapping[str, Any], anew: bool = False) -> dict[str, Tensor]:
    """The tensors of the model of a checkpoint; arguments and errors as of `read_tensors`."""
    names = [name for name in manifest["files"] if name != STATE]
    parts = [read_tensors(folder, manifest, name, anew) for name in names]
    return {key: value for part in parts for key, value in part.items()}


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """The sha256 of the file of a model; of several files that of theirs."""
    sums = [about["sha256"] for name, about in manifest["files"].items() if name != STATE]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def remove_checkpoint(folder: Path) -> None:
    """Removes a checkpoint; its manifest goes first, so that never half of one is left."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for file in (*folder.glob("*.safetensors"), *unfinished(folder)):
        file.unlink()
    with suppress(OSError):  # somebody put something there
        folder.rmdir()


def steps_of(run: Path) -> list[Path]:
    """The folders of checkpoints of a training run, whole or not, the newest last."""
    folders = [path for path in run.glob("step-*") if STEP.fullmatch(path.name) and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("step-")))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder.

    Raises:
        CheckpointError: There is none, or it is not a manifest.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if manifest["schema"] != 1 or MODEL not in manifest["files"]:
            raise KeyError("schema")
        manifest["prior"], manifest["config"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no {MANIFEST}: it is not a checkpoint") from None
    except (ValueError, KeyError, TypeError, OSError):
        raise CheckpointError(f"{path} is not a readable checkpoint manifest") from None
    return manifest


def read_tensors(
    folder: Path, manifest: Mapping[str, Any], name: str, anew: bool = False
) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint, after checking its sha256.

    Arguments:
        folder: The checkpoint.
        manifest: Its manifest.
        name: The file.
        anew: Check even a large file that was found sound before, and is untouched since.

    Raises:
        CheckpointError: The file is missing or its bytes are not those of the manifest.
    """
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read weights {path}: {error.strerror}") from None
    expected = manifest["files"][name]["sha256"]
    known = not anew and is_verified(path, expected)
    actual = expected if known else hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise CheckpointError(
            f"weights {path} are corrupt: sha256 is {actual}, expected {expected}; "
            f"{'install genprior again' if EMBEDDED in path.parents else 'restore the file'}"
        )
    if not known:
        remember(path, expected)
    try:
        return load(data)
    except safetensors.SafetensorError:
        raise CheckpointError(f"weights {path} are not a safetensors file") from None


def newest(folder: Path) -> Path:
    """The checkpoint in a folder: itself, or the newest complete one of a training run.

    Raises:
        CheckpointError: There is none.
    """
    if (folder / MANIFEST).exists():
        return folder
    complete = [path for path in steps_of(folder) if (path / MANIFEST).exists()]
    if not complete:
        raise CheckpointError(f"no checkpoint in {folder}: give a folder that holds {MANIFEST}")
    return complete[-1]


def pack(source: Path, target: Path, about: Mapping[str, Any]) -> None:
    """Copies a checkpoint in half precision, without what only training needs.

    Vectors stay as they are: they are small, and a variance may be too small for half precision.

    Arguments:
        source: Checkpoint, or folder of a training run.
        target: Folder of the new checkpoint.
        about: What to add to its manifest.

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
            raise OverflowError(f"{key} does not fit into half precision: keep float32")
    prior, config = manifest.pop("prior"), manifest.pop("config")
    rest = {key: value for key, value in manifest.items() if key not in ("schema", "files")}
    save_checkpoint(target, prior, config, half, about={**rest, **about}, largest=LARGEST)
