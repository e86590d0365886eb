"""Data sets of torchvision by name, in the part for training or in the one held out."""

import inspect
from typing import Any

import torch

from genprior.core.cache import cache_folder
from genprior.core.errors import SettingError

TORCHVISION = "torchvision:"
# How those without `train` and `split` tell their parts: (for training, held out).
PARTS = {
    "image_set": ("train", "val"),
    "background": (True, False),
    "version": ("2021_train", "2021_valid"),
}


def open_set(text: str, held_out: bool) -> Any:
    """A data set of torchvision.

    Arguments:
        text: NAME, NAME:FOLDER or NAME,SETTING=VALUE,...:FOLDER.
        held_out: The part that is not for training; all of it where it has no parts.

    Raises:
        SettingError: There is no such set or setting, or it cannot be fetched.
    """
    import torchvision

    title, _, folder = text.partition(":")
    name, *words = title.split(",")
    cls = getattr(torchvision.datasets, name, None)
    if not (isinstance(cls, type) and issubclass(cls, torch.utils.data.Dataset)):
        known = sorted(n for n in torchvision.datasets.__all__ if n[0].isupper())
        raise SettingError(f"torchvision has no data set {name!r}: choose one of {known}")
    taken = _taken(cls)
    root = folder or str(cache_folder() / name)
    given = {key: value for key, value in (("root", root), ("download", True)) if key in taken}
    given |= _settings(name, words, taken)
    try:
        return _part(cls, given | _parts(given, taken, held_out), taken, held_out)
    except TypeError as error:
        raise SettingError(
            f"torchvision's {name} must be told more ({error}): write "
            f"{TORCHVISION}{name},SETTING=VALUE"
        ) from error
    except (OSError, RuntimeError) as error:
        raise SettingError(
            f"torchvision's {name} cannot be had ({error}): fetch it into {root}, or name its "
            f"folder, {TORCHVISION}{name}:FOLDER"
        ) from error


def _taken(cls: type) -> dict[str, inspect.Parameter]:
    """Arguments of a class, with those that it hands on to what it is made from."""
    taken: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        parameters = inspect.signature(base.__init__).parameters
        taken = {**parameters, **taken}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            break
    return taken


def _settings(
    name: str, words: list[str], taken: dict[str, inspect.Parameter]
) -> dict[str, Any]:
    """Arguments of a data set as they are typed."""
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in taken:
            raise SettingError(
                f"{TORCHVISION}{name} has no setting {key!r}: choose one of "
                f"{', '.join(sorted(set(taken) - {'self', 'root', 'args', 'kwargs'}))}"
            )
        whole = taken[key].annotation is int and value.isdecimal()
        known = {"true": True, "false": False}.get(value.lower(), value)
        settings[key] = int(value) if whole else known
    return settings


def _parts(
    given: dict[str, Any], taken: dict[str, inspect.Parameter], held_out: bool
) -> dict[str, Any]:
    """Which part it is where that is told by other arguments than train, unless they are given."""
    found = {
        name: both[held_out] for name, both in PARTS.items()
        if name in taken and taken[name].default == both[0]
    }
    if "split" in taken and not held_out and "fold" in str(taken["split"].default):
        found["split"] = "train"  # of LFW: its folds have people of both parts
    return {name: value for name, value in found.items() if name not in given}


def _part(
    cls: type, given: dict[str, Any], taken: dict[str, inspect.Parameter], held_out: bool
) -> Any:
    """A data set, or the part of it that is, or is not, for training."""
    if "train" in taken:
        return cls(**{"train": not held_out, **given})
    if held_out and "split" in taken and "split" not in given:
        for split in ("test", "val"):
            try:
                return cls(**given, split=split)
            except ValueError:  # it has no part of that name
                continue
    return cls(**given)
