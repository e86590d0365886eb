"""From names to the objects that a restoration is made of: prior, operator, solver."""

import copy
import inspect
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import fields
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import deepinv
import torch
from torch import Tensor, nn

from genprior.core.errors import CheckpointError, SettingError
from genprior.inverse.base import Solver
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator
from genprior.priors.base import ABILITIES, Decoder, Denoiser, Density, Gaussian, Variational
from genprior.priors.checkpoint import MANIFEST, newest, read_manifest, read_model
from genprior.registry import (
    BASELINES,
    FROM_EXEMPLAR,
    OF_OTHERS,
    OPERATORS,
    PRIORS,
    SOLVERS,
    find_prior,
    lookup,
)


def load_prior(name: str | Path, device: str = "cpu") -> nn.Module:
    """Loads a prior.

    Arguments:
        name: A prior that ships, "ddpm"; one of its sets, "ddpm:digits"; or the path of a
            checkpoint folder, or of the folder of a training run.
        device: Where to put it.

    Returns:
        The prior, in evaluation mode, its parameters frozen.

    Raises:
        CheckpointError: There is no such prior, or its weights are corrupt.
    """
    return load_checkpoint(find_prior(name))[0].to(device)


def make_operator(task: str, **settings: Any) -> Operator:
    """Builds an operator by the name of its task.

    Arguments:
        task: "inpaint", "deblur", "superres", "denoise", or "external" for a physics of deepinv.
        settings: Arguments of its class.

    Raises:
        ValueError: The task does not exist, or a setting is wrong.
    """
    cls, what = lookup(OPERATORS, task, "operator"), f"operator {task!r}"
    known = inspect.signature(cls.__init__).parameters
    _demand_known(what, settings, [name for name in known if name != "self"])
    missing = [name for name, parameter in known.items()
               if parameter.default is parameter.empty and name not in ("self", *settings)]
    if missing:
        raise SettingError(f"{what} needs {' and '.join(missing)}")
    return cls(**settings)


def make_solver(name: str, steps: int | None = None, **settings: Any) -> Solver:
    """Builds a solver by name.

    Arguments:
        name: Name in the registry.
        steps: Steps of the solver, >= 1, which for most is network evaluations; None keeps its
            default.
        settings: Other fields of the solver.

    Raises:
        ValueError: The name or a setting does not exist; the message lists those that do.
    """
    cls = lookup(SOLVERS, name, "solver")
    if steps is not None:
        settings["steps"] = steps
    return _with_settings(cls, f"solver {name!r}", settings)


def make_baseline(name: str, **settings: Any) -> Baseline:
    """Builds a classical method by name.

    Arguments:
        name: Name in the registry, or "deepinv:NAME" for a reconstructor of deepinv.
        settings: Its fields, or the arguments of deepinv's class.

    Raises:
        ValueError: The name or a setting does not exist; the message lists those that do.
    """
    name, _, peer = name.partition(":")
    cls = lookup(BASELINES, name, "baseline")
    if peer:
        return cls(peer, tuple(settings.items()))
    return _with_settings(cls, f"baseline {name!r}", settings)


def _with_settings(cls: type, what: str, settings: dict[str, Any]) -> Any:
    kinds = {field.name: field.type for field in fields(cls)}
    _demand_known(what, settings, list(kinds))
    for setting, value in settings.items():
        if not _is_a(value, kinds[setting]):
            raise SettingError(
                f"{what}: {setting} must be {_called(kinds[setting])}, got {value!r}"
            )
    try:
        return cls(**settings)
    except ValueError as error:
        raise SettingError(f"{what}: {error}") from error


def _demand_known(what: str, settings: Iterable[str], known: Collection[str]) -> None:
    for setting in settings:
        if setting not in known:
            raise SettingError(
                f"{what} has no setting {setting!r}, it has {', '.join(known) or 'none'}: "
                f"leave it out or choose another one"
            )


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; whole numbers are numbers, truth values are not."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_args(kind):
        return any(_is_a(value, one) for one in get_args(kind))
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and value is not bool(value)
    return isinstance(value, kind)


def _called(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_args(kind):
        return " or ".join(map(_called, get_args(kind)))
    names = {int: "a whole number", float: "a number", type(None): "left out"}
    return names.get(kind, f"a {getattr(kind, '__name__', kind)}")


def prior_on(prior: str | Path | object, device: torch.device) -> tuple[str, object]:
    """A prior on a device, for evaluation, and its name; one of the caller is left as it is."""
    if isinstance(prior, str | Path):
        folder = newest(find_prior(prior))
        return str(prior), _loaded(folder, (folder / MANIFEST).stat().st_mtime_ns, device)
    name = type(prior).__name__
    if isinstance(prior, deepinv.models.Denoiser):
        prior = lookup(OF_OTHERS, "denoiser", "prior")(prior)
    module = isinstance(prior, nn.Module)
    held = [*prior.parameters(), *prior.buffers()] if module else []
    if any(t.device != device or t.is_inference() for t in held):
        prior = copy.deepcopy(prior).to(device).eval()
    if module and any(part.training for part in prior.modules()):
        prior = _evaluating(prior)
    return name, prior


@lru_cache(maxsize=1)  # a call for each photo of many would load it as often
def _loaded(folder: Path, written: int, device: torch.device) -> nn.Module:
    with torch.inference_mode(False):  # later calls may want gradients
        return load_checkpoint(folder)[0].to(device)


def _evaluating(prior: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares the weights."""
    parts = [value for part in prior.modules() for value in vars(part).values()]
    held = [*prior.parameters(), *prior.buffers(), *(v for v in parts if isinstance(v, Tensor))]
    try:
        return copy.deepcopy(prior, {id(tensor): tensor for tensor in held}).eval()
    except (TypeError, RuntimeError) as error:
        raise SettingError(
            f"{type(prior).__name__} is in training mode, and cannot be copied ({error}): call "
            f".eval() first"
        ) from error


def as_operator(
    operator: object, image_shape: tuple[int, int, int] | None = None
) -> Operator:
    """An operator, or that of a physics of deepinv, which is one of ours if that does the same.

    Arguments:
        operator: The operator or the physics.
        image_shape: Shape (C, H, W) of the images of a physics; None finds it out.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(operator, Operator):
        return operator
    same: Operator | None = None
    if type(operator) is deepinv.physics.Denoising:
        same = make_operator("denoise")
    elif type(operator) is deepinv.physics.Inpainting:
        mask = operator.mask
        with suppress(ValueError):  # its mask is not one of holes
            same = make_operator("inpaint", keep=mask[None] if mask.ndim == 3 else mask)
    if same is None:
        return make_operator("external", physics=operator, image_shape=image_shape)
    same.measures_images = False
    return same


def operator_on(operator: Operator, device: torch.device) -> Operator:
    """An operator on a device. It is copied, not moved."""
    held = operator.buffers() if isinstance(operator, nn.Module) else ()
    if any(b.device != device or b.is_inference() for b in held):
        operator = copy.deepcopy(operator).to(device)
    return operator


def default_solver(operator: Operator, prior: object, samples: int) -> str:
    """Name of the solver to take when none is named.

    One picture is asked for: a point estimate. Several samples: the best calibrated sampler in
    a hundred evaluations (benchmarks/results/calibration.md). Gaussian priors have exact samples
    in any case.

    Raises:
        SettingError: The prior has no ability that a solver could use.
    """
    if isinstance(prior, Gaussian):
        return "gaussian"
    if isinstance(prior, Denoiser):
        if samples > 1:
            return "moment-matched"
        return "posterior-mean" if operator.is_identity else "hqs"
    if isinstance(prior, Density) and samples == 1:
        return "map"
    if isinstance(prior, Decoder):
        if samples > 1:
            return "langevin"
        if isinstance(prior, Variational):
            return "jpmap"
        return "iagan" if isinstance(prior, nn.Module) else "csgm"
    if isinstance(prior, Density):
        return "image-langevin"
    needed = {lookup(SOLVERS, name, "solver").needs for name in SOLVERS}
    raise SettingError(
        f"no solver takes a {type(prior).__name__}: give a prior that can do one of "
        f"{', '.join(ability for ability, cls in ABILITIES.items() if cls in needed)}; a function "
        f"of images and a noise level is made one by genprior.priors.external.External"
    )


def choose_solver(
    solver: str | Solver | None, steps: int | None, operator: Operator, prior: object, samples: int
) -> tuple[str, Solver]:
    """The solver of a restoration and its name.

    Arguments:
        solver: Name, "auto", object, or None for "auto".
        steps: See `make_solver`.
        operator: What is measured, for "auto".
        prior: The prior, for "auto".
        samples: How many samples are drawn.

    Raises:
        ValueError: The solver or its setting does not exist, `steps` comes with an object that
            has its own, or several samples are asked of a solver that draws none.
    """
    if isinstance(solver, Solver):
        if steps is not None:
            raise SettingError("steps goes with a solver's name: set it in the solver object")
        name, method = type(solver).__name__, solver
    else:
        name = solver or "auto"
        name = default_solver(operator, prior, samples) if name == "auto" else name
        method = make_solver(name, steps)
    if samples > 1 and not method.stochastic:
        drawing = [other for other in SOLVERS if lookup(SOLVERS, other, "solver").stochastic]
        raise SettingError(
            f"solver {name} gives one answer, not {samples} posterior samples: "
            f"choose one of {', '.join(drawing)}"
        )
    return name, method


def load_checkpoint(folder: Path, anew: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuilds the prior of a checkpoint.

    Arguments:
        folder: Checkpoint folder, or the folder of a training run (its newest is taken).
        anew: See `read_tensors`.

    Returns:
        The prior (float32, evaluation mode, on the CPU) and the manifest.

    Raises:
        CheckpointError: There is no checkpoint, or it is corrupt.
    """
    folder = newest(folder)
    manifest = read_manifest(folder)
    tensors = read_model(folder, manifest, anew)
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn for nothing
        try:
            cls = lookup(PRIORS, manifest["prior"], "prior")
            prior = getattr(cls, "from_config", cls)(**manifest["config"])
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{folder} is of a prior that cannot be built ({error}): update genprior, or "
                f"train it again"
            ) from error
    expected = {key: value.shape for key, value in prior.state_dict().items()}
    if {key: value.shape for key, value in tensors.items()} != expected:
        raise CheckpointError(f"weights in {folder} do not fit the manifest's configuration")
    prior.load_state_dict({key: value.to(torch.float32) for key, value in tensors.items()})
    prior = prior.float().to(memory_format=torch.channels_last)  # in which convolutions are faster
    if isinstance(prior, Denoiser):
        flip, turn = (manifest.get(key, True) for key in ("flip", "turn"))
        prior.symmetries = [k for k in prior.symmetries
                            if (flip or k < 4) and (turn or k % 4 == 0)]
    return prior.eval().requires_grad_(False), manifest


BORDER = 3


def restrict_to_border(name: str, solver: Solver, task: str, prior: str | None) -> Solver:
    """The solver by which a task is done for a prior that may be estimated from one picture.

    Told all pixels of the picture, such a law explains them by repeating that picture, hole
    included. Galerne and Leclaire (2017) tell it those near the hole.

    Arguments:
        name: Name of the solver.
        solver: The solver, which is taken for other tasks and priors.
        task: Name of the task.
        prior: Name of the prior.
    """
    if (task, name) == ("inpaint", "gaussian") and prior in FROM_EXEMPLAR:
        return make_solver(name, border=BORDER)
    return solver
