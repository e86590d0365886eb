"""Torchvision data sets by name: the training part, or the held-out test or validation part."""

import inspect
from typing import Any

import torch

from genprior.core.cache import cache_folder
from genprior.core.errors import SettingError

TORCHVISION = "torchvision:"
# Other arguments than `train` and `split` that select a part: (training, held out).
PARTS = {
    "image_set": ("train", "val"),
    "background": (True, False),
    "version": ("2021_train", "2021_valid"),
}


def open_set(text: str, held_out: bool) -> Any:
    """Opens a data set of torchvision.

    Arguments:
        text: NAME, NAME:FOLDER or NAME,SETTING=VALUE,...:FOLDER.
        held_out: Whether to open the test or validation part; a data set without parts is opened
            whole.

    Raises:
        SettingError: The data set or a setting does not exist, or the data cannot be downloaded.
    """
    import torchvision

    title, _, folder = text.partition(":")
    name, *words = title.split(",")
    cls = getattr(torchvision.datasets, name, None)
    if not (isinstance(cls, type) and issubclass(cls, torch.utils.data.Dataset)):
        known = sorted(n for n in torchvision.datasets.__all__ if n[0].isupper())
        raise SettingError(f"torchvision has no data set {name!r}: choose one of {known}")
    accepted = _accepted_parameters(cls)
    root = folder or str(cache_folder() / name)
    given = {key: value for key, value in (("root", root), ("download", True)) if key in accepted}
    given |= _parse_settings(name, words, accepted)
    try:
        return _open_part(
            cls, given | _part_arguments(given, accepted, held_out), accepted, held_out
        )
    except TypeError as error:
        raise SettingError(
            f"torchvision's {name} needs further settings ({error}): write "
            f"{TORCHVISION}{name},SETTING=VALUE"
        ) from error
    except (OSError, RuntimeError) as error:
        raise SettingError(
            f"torchvision's {name} cannot be loaded ({error}): download it into {root}, or give "
            f"its folder, {TORCHVISION}{name}:FOLDER"
        ) from error


def _accepted_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a class, with those passed on to base classes as **kwargs."""
    accepted: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        parameters = inspect.signature(base.__init__).parameters
        accepted = {**parameters, **accepted}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            break
    return accepted


def _parse_settings(
    name: str, words: list[str], accepted: dict[str, inspect.Parameter]
) -> dict[str, Any]:
    """Parses SETTING=VALUE words into arguments of a data set."""
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in accepted:
            raise SettingError(
                f"{TORCHVISION}{name} has no setting {key!r}: choose one of "
                f"{', '.join(sorted(set(accepted) - {'self', 'root', 'args', 'kwargs'}))}"
            )
        whole = accepted[key].annotation is int and value.isdecimal()
        known = {"true": True, "false": False}.get(value.lower(), value)
        settings[key] = int(value) if whole else known
    return settings


def _part_arguments(
    given: dict[str, Any], accepted: dict[str, inspect.Parameter], held_out: bool
) -> dict[str, Any]:
    """Returns the arguments other than `train` that select the part, unless they are given."""
    found = {
        name: both[held_out] for name, both in PARTS.items()
        if name in accepted and accepted[name].default == both[0]
    }
    if "split" in accepted and not held_out and "fold" in str(accepted["split"].default):
        found["split"] = "train"  # LFW: the default, all folds, mixes both parts
    return {name: value for name, value in found.items() if name not in given}


def _open_part(
    cls: type, given: dict[str, Any], accepted: dict[str, inspect.Parameter], held_out: bool
) -> Any:
    """Opens the training or the held-out part of a data set, or all of one without parts."""
    if "train" in accepted:
        return cls(**{"train": not held_out, **given})
    if held_out and "split" in accepted and "split" not in given:
        for split in ("test", "val"):
            try:
                return cls(**given, split=split)
            except ValueError:  # no part has that name
                continue
    return cls(**given)
