"""Checkpoints: a folder of safetensors files and a manifest with their checksums.

    model.safetensors   weights of the prior (their moving average, if there is one); shipped
                        weights are split into files of at most 16 MB: model-2.safetensors, ...
    state.safetensors   further tensors needed to resume training (absent in shipped weights)
    manifest.json       prior, configuration, provenance, size and sha256 of each file

The manifest is written last: a folder without one is not a checkpoint. No pickle is used.

A folder may be untrusted. Only files with these names are read, only if they are regular
files of the size in the manifest, and shapes are known from their headers before they are read.
"""

import hashlib
import itertools
import json
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import safetensors
import torch
from msgspec import Meta
from safetensors.torch import load, save
from torch import Tensor

from genprior.core.atomic_files import new_folder, unfinished, write_atomic
from genprior.core.checksums import file_digest
from genprior.core.errors import CheckpointError
from genprior.core.records import parse_json, read_regular
from genprior.priors.weights import EMBEDDED

MANIFEST, MODEL, STATE = "manifest.json", "model.safetensors", "state.safetensors"
LARGEST = 16 * 10**6
STEP = re.compile(r"step-\d{8,}")
LARGEST_MANIFEST = 2**24
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int32,
         torch.int64, torch.bool)


class _File(msgspec.Struct):
    """Entry of a manifest for one file."""

    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    bytes: Annotated[int, Meta(ge=0)]


class _Manifest(msgspec.Struct):
    """The entries of a manifest that are used when it is read back."""

    schema: Literal[1]
    prior: str
    config: dict[str, Any]
    files: dict[
        Annotated[str, Meta(pattern=r"\A(model(-[0-9]{1,6})?|state)\.safetensors\Z")], _File
    ]
    flip: bool = True
    turn: bool = True


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
    model = {key: value for part in parts for key, value in part.items()}
    if len(model) < sum(map(len, parts)):
        raise CheckpointError(f"some weights are stored twice in {folder}: write it again")
    return model


def stored_shapes(folder: Path, manifest: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Returns the shapes of the tensors of a model, from the headers of its files.

    Arguments and errors as in `read_tensors`, but the checksums are not compared.
    """
    shapes: dict[str, torch.Size] = {}
    for name in (name for name in manifest["files"] if name != STATE):
        _check_file(folder, manifest, name)
        try:
            with safetensors.safe_open(folder / name, "pt") as file:
                found = {key: torch.Size(file.get_slice(key).get_shape()) for key in file.keys()}
        except (safetensors.SafetensorError, OSError, ValueError):  # which `read_tensors` explains
            found = {key: t.shape for key, t in read_tensors(folder, manifest, name).items()}
        shapes |= found
    return shapes


def check_sums(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compares the sha256 of the model files without holding them in memory.

    Raises:
        CheckpointError: A file is corrupt.
    """
    for name in (name for name in manifest["files"] if name != STATE):
        _check_sum(folder / name, manifest, name, file_digest(folder / name))


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Returns the sha256 of the model file; of several files, the sha256 of their checksums."""
    sums = [about["sha256"] for name, about in manifest["files"].items() if name != STATE]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def remove_checkpoint(folder: Path) -> None:
    """Removes a checkpoint, its manifest first, so that no incomplete checkpoint is left.

    A link to a folder elsewhere is left alone.
    """
    if folder.is_symlink():
        return
    for file in (folder / MANIFEST, *folder.glob("*.safetensors"), *unfinished(folder)):
        if file.is_symlink() or not file.is_dir():
            file.unlink(missing_ok=True)
    with suppress(OSError):  # the folder holds other files
        folder.rmdir()


def steps_of(run: Path) -> list[Path]:
    """Returns the checkpoint folders of a training run, complete or not, the newest last."""
    folders = [path for path in run.glob("step-*") if STEP.fullmatch(path.name) and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("step-")))


def complete_steps(run: Path) -> list[Path]:
    """Returns the complete checkpoint folders of a training run, the newest last."""
    return [path for path in steps_of(run) if (path / MANIFEST).exists()]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of a checkpoint folder.

    Raises:
        CheckpointError: There is no manifest, or it is not readable.
    """
    path = folder / MANIFEST
    try:
        manifest = parse_json(read_regular(path, LARGEST_MANIFEST), dict[str, Any])
        if MODEL not in msgspec.convert(manifest, _Manifest).files:
            raise ValueError(f"it lists no {MODEL}")
    except FileNotFoundError:
        raise CheckpointError(f"{folder} contains no {MANIFEST}: it is not a checkpoint") from None
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{path} is not a readable checkpoint manifest ({reason}): get another copy of the "
            f"folder"
        ) from None
    return manifest


def read_tensors(folder: Path, manifest: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Returns the tensors of one file of a checkpoint, after checking its sha256.

    Arguments:
        folder: The checkpoint folder.
        manifest: Its manifest.
        name: Name of the file.

    Raises:
        CheckpointError: The file is missing, is not a regular file, does not match the size or the
            checksum in the manifest, or holds numbers of another type.
    """
    path = folder / name
    size = _check_file(folder, manifest, name)
    try:
        data = read_regular(path, size)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read weights {path}: {error}") from None
    _check_sum(path, manifest, name, hashlib.sha256(data).hexdigest())
    try:
        tensors = load(data)
    except safetensors.SafetensorError:
        raise CheckpointError(f"weights {path} are not a safetensors file") from None
    except KeyError as error:  # a type that torch does not have
        raise CheckpointError(f"weights {path} hold numbers of type {error}, not floats") from None
    for key, tensor in tensors.items():
        if tensor.dtype not in TYPES:
            raise CheckpointError(
                f"weights {path} hold {tensor.dtype} in {key}: convert it to float32 or float16"
            )
    return tensors


def _check_file(folder: Path, manifest: Mapping[str, Any], name: str) -> int:
    """Returns the size of a file of a checkpoint, after checking that it is as in the manifest.

    Raises:
        CheckpointError: There is no such file, it is not regular, or it has another size.
    """
    path = folder / name
    if name not in manifest["files"]:
        raise CheckpointError(f"{folder} holds no {name}: training cannot continue from it, give "
                              f"the folder of a training run, or start from its weights, --init")
    expected = manifest["files"][name]["bytes"]
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointError(f"cannot read weights {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"weights {path} are not a regular file: {_remedy(path)}")
    if status.st_size != expected:
        raise CheckpointError(f"weights {path} are corrupt: {status.st_size} bytes, expected "
                              f"{expected}; {_remedy(path)}")
    return expected


def _check_sum(path: Path, manifest: Mapping[str, Any], name: str, actual: str) -> None:
    """Raises CheckpointError unless a file has the sha256 in the manifest."""
    expected = manifest["files"][name]["sha256"]
    if actual != expected:
        # The target of a link may be a private file: its content must not be revealed.
        shown = "another" if path.is_symlink() else actual
        raise CheckpointError(
            f"weights {path} are corrupt: sha256 is {shown}, expected {expected}; {_remedy(path)}"
        )


def _remedy(path: Path) -> str:
    return "install genprior again" if EMBEDDED in path.parents else "restore the file"


def newest(folder: Path) -> Path:
    """Returns the folder itself if it is a checkpoint, else the newest complete one of the run.

    Raises:
        CheckpointError: There is no complete checkpoint.
    """
    if (folder / MANIFEST).exists():
        return folder
    complete = complete_steps(folder)
    if not complete:
        raise CheckpointError(f"no checkpoint in {folder}: give a folder that contains {MANIFEST}")
    return complete[-1]


def pack(source: Path, target: Path, about: Mapping[str, Any]) -> None:
    """Copies a checkpoint in half precision, without the state for resuming training.

    Vectors keep their precision: they are small, and half precision could underflow a variance.

    Arguments:
        source: Folder of a checkpoint or of a training run.
        target: Folder of the new checkpoint. It appears when it is complete.
        about: Entries to add to its manifest.

    Raises:
        CheckpointError: There is no checkpoint, or it is corrupt.
        OSError: The target exists, or cannot be written.
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
    with new_folder(target) as folder:
        save_checkpoint(folder, prior, config, half, about={**rest, **about}, largest=LARGEST)
