"""Factories of priors, operators, solvers and baselines by name, and the default solver."""

import copy
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor, nn

from genprior.core.errors import CheckpointError, SettingError
from genprior.core.foreign_classes import foreign_names, is_exactly, is_instance
from genprior.inverse.base import Quality, Solver
from genprior.inverse.baselines.base import Baseline
from genprior.io.limits import KERNEL_PIXELS
from genprior.operators.base import ColourFilter, Operator
from genprior.operators.jpeg_tables import standard_tables
from genprior.operators.kernels import gaussian_kernel, motion_kernel
from genprior.operators.masks import hole_of
from genprior.priors.arguments import shapes_of
from genprior.priors.base import (
    ABILITIES,
    ConditionalGenerator,
    Decoder,
    Denoiser,
    Density,
    Gaussian,
    LatentDenoiser,
    Trainable,
    Variational,
)
from genprior.priors.checkpoint import (
    MANIFEST,
    check_sums,
    newest,
    read_manifest,
    read_model,
    stored_shapes,
)
from genprior.priors.external import is_external, load, local_copy, written
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

# Largest side in pixels that a manifest can choose for the images that `sample` draws by default.
LARGEST_SAMPLE = 4096


def load_prior(name: str | Path, device: str = "cpu", **settings: Any) -> nn.Module:
    """Loads a prior.

    Arguments:
        name: A prior that is shipped, such as "ddpm" or "ddpm:digits"; or the path of a
            checkpoint folder, of the folder of a training run, of a folder of diffusers, or of a
            file of weights (.pt, .pth, .safetensors); or "hf:ORG/NAME[@REVISION]". A format
            may be named in front, such as "torchcfm:model.pt".
        device: Device to put it on.
        settings: For a prior of another package, what its files do not show, such as `prompt` and
            `guidance` of latent diffusion or `class_label`; docs/external-priors.md lists them.

    Returns:
        The prior, in evaluation mode, its parameters frozen.

    Raises:
        CheckpointError: There is no such prior, its weights are corrupt, or it has no such
            setting.
    """
    return load_described(name, **settings)[0].to(device)


def load_described(name: str | Path, **settings: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Loads a prior as `load_prior` does, on the CPU; returns it and its manifest."""
    where = local_copy(name)
    if is_external(where):
        return load(where, **settings)
    check_no_settings(name, settings)
    return load_checkpoint(find_prior(where))


def check_no_settings(name: str | Path, settings: Mapping[str, Any]) -> None:
    """Raises CheckpointError if there are settings; `name` is a prior of genprior."""
    if settings:
        raise CheckpointError(
            f"prior {str(name)!r} has no {' and no '.join(settings)}: these are for priors of "
            f"other packages, such as a folder of latent diffusion"
        )


def make_operator(task: str, **settings: Any) -> Operator:
    """Builds an operator by the name of its task.

    Arguments:
        task: "inpaint", "deblur", "superres", "superres-kernel", "denoise", "jpeg", "colorize",
            "demosaic", "compressed-sensing", "hdr", "gamma", "quantise", "phase",
            "coded-diffraction", "external" for a linear physics of deepinv, or "nonlinear" for
            any other physics or function of torch.
        settings: Arguments of the operator class. As in the shell, "inpaint" also takes `mask`
            (white, 1 or True = fill in) in place of `keep` (1 or True = known), and "deblur"
            takes `gaussian` (standard deviation in pixels) or `motion` (length in pixels, angle
            in degrees) in place of `kernel`, and "jpeg" takes `quality` (1 to 100) in place of
            `tables`.

    Raises:
        ValueError: The task does not exist, or a setting is wrong.

    >>> make_operator("deblur", gaussian=1.6).kernel.shape
    torch.Size([1, 1, 15, 15])
    """
    cls, what = lookup(OPERATORS, task, "operator"), f"operator {task!r}"
    known, others = _arguments(cls), ALTERNATIVES.get(task, {})
    _check_known(what, settings, [*known, *others])
    settings = _with_alternatives(what, settings, others)
    missing = [" or ".join([name, *(other for other, (own, _) in others.items() if own == name)])
               for name, parameter in known.items()
               if parameter.default is parameter.empty and name not in settings]
    if missing:
        raise SettingError(f"{what} needs {' and '.join(missing)}")
    operator: Operator = cls(**settings)
    return operator


def _with_alternatives(
    what: str, settings: Mapping[str, Any],
    others: Mapping[str, tuple[str, Callable[[Any], Tensor]]],
) -> dict[str, Any]:
    """Returns the settings with the arguments that others stand for; None counts as not given."""
    result = {name: value for name, value in settings.items() if name not in others}
    for name, (argument, convert) in others.items():
        value = settings.get(name)
        if value is None:
            continue
        if argument in result:
            raise SettingError(f"{what}: give only one of {', '.join([argument, *others])}")
        result[argument] = convert(value)
    return result


def gaussian_blur(std: float) -> Tensor:
    """Returns the kernel of a Gaussian blur, (h, h), of a standard deviation in pixels.

    Raises:
        ValueError: The standard deviation is not a number > 0, or far too large.
    """
    if not _has_type(std, float):
        raise SettingError(f"gaussian must be a standard deviation in pixels, got {std!r}")
    _check_width(8 * std)  # to 4 standard deviations
    return gaussian_kernel(std)


def motion_blur(motion: tuple[float, float]) -> Tensor:
    """Returns the kernel of a linear motion blur, (h, w).

    Arguments:
        motion: Length in pixels, >= 1, and angle in degrees, counter-clockwise.

    Raises:
        ValueError: These are not two numbers, or the length is below 1 or far too large.
    """
    if not (isinstance(motion, tuple | list) and len(motion) == 2
            and all(_has_type(number, float) for number in motion)):
        raise SettingError(f"motion must be (length in pixels, angle in degrees), got {motion!r}")
    _check_width(motion[0])
    return motion_kernel(*motion)


def _check_width(width: float) -> None:
    if KERNEL_PIXELS**0.5 < width < float("inf"):
        raise SettingError(f"a blur {width:.0f} pixels wide is too wide: is it given in pixels?")


# Other arguments of an operator: the argument that each stands for, and its conversion.
ALTERNATIVES: dict[str, dict[str, tuple[str, Callable[[Any], Tensor]]]] = {
    "inpaint": {"mask": ("keep", lambda mask: ~hole_of(mask))},
    "deblur": {"gaussian": ("kernel", gaussian_blur), "motion": ("kernel", motion_blur)},
    "jpeg": {"quality": ("tables", standard_tables)},
}


def _arguments(cls: Any) -> dict[str, inspect.Parameter]:
    """Returns the named arguments of a class; an nn.Module without its own `__init__` has none."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = inspect.signature(cls.__init__).parameters
    return {name: p for name, p in known.items() if name != "self" and p.kind not in several}


def make_solver(name: str, steps: int | None = None, **settings: Any) -> Solver:
    """Builds a solver by name.

    Arguments:
        name: Name in the registry.
        steps: Steps of the solver, >= 1; for most solvers the number of network evaluations. None
            keeps the default.
        settings: Other fields of the solver.

    Raises:
        ValueError: The name or a setting does not exist; the message lists those that do.
    """
    cls = lookup(SOLVERS, name, "solver")
    if steps is not None:
        settings["steps"] = steps
    return _with_settings(cls, f"solver {name!r}", settings)


def make_baseline(name: str, **settings: Any) -> Baseline:
    """Builds a baseline, a classical method, by name.

    Arguments:
        name: Name in the registry, or "deepinv:NAME" for a reconstructor of deepinv.
        settings: Fields of the baseline, or arguments of deepinv's class.

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
    _check_known(what, settings, list(kinds))
    for setting, value in settings.items():
        if not _has_type(value, kinds[setting]):
            raise SettingError(
                f"{what}: {setting} must be {_type_name(kinds[setting])}, got {value!r}"
            )
    try:
        return cls(**settings)
    except ValueError as error:
        raise SettingError(f"{what}: {error}") from error


def _check_known(what: str, settings: Iterable[str], known: Collection[str]) -> None:
    for setting in settings:
        if setting not in known:
            raise SettingError(
                f"{what} has no setting {setting!r}, it has {', '.join(known) or 'none'}: "
                f"leave it out or choose another one"
            )


def _has_type(value: Any, kind: Any) -> bool:
    """Whether a value has an annotated type; an int is also a float, a bool is neither."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_args(kind):
        return any(_has_type(value, option) for option in get_args(kind))
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and value is not bool(value)
    return isinstance(value, kind)


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_args(kind):
        return " or ".join(map(_type_name, get_args(kind)))
    names = {int: "a whole number", float: "a number", type(None): "left out"}
    return names.get(kind, f"a {getattr(kind, '__name__', kind)}")


def prior_on(prior: Any, device: torch.device) -> tuple[str, Any]:
    """Returns a prior's name, and the prior on a device in evaluation mode (a copy if needed)."""
    if isinstance(prior, str | Path):
        where = local_copy(prior)
        if is_external(where):
            return str(prior), _load_cached(where, written(where), device)
        folder = newest(find_prior(where))
        return str(prior), _load_cached(folder, (folder / MANIFEST).stat().st_mtime_ns, device)
    name = type(prior).__name__
    prior = _as_prior(prior)
    is_module = isinstance(prior, nn.Module)
    tensors = [*prior.parameters(), *prior.buffers()] if is_module else []
    if any(t.device != device or t.is_inference() for t in tensors):
        prior = copy.deepcopy(prior).to(device).eval()
    if is_module and any(part.training for part in prior.modules()):
        prior = _evaluation_copy(prior)
    return name, prior


def _as_prior(prior: object) -> object:
    """Wraps a denoiser of deepinv, a pipeline of diffusers or a function (images, noise level).

    Raises:
        SettingError: It is a model of diffusers that cannot be wrapped.
    """
    if isinstance(prior, tuple(ABILITIES.values())):
        return prior
    if is_instance(prior, "deepinv.models.Denoiser"):
        return lookup(OF_OTHERS, "denoiser", "prior")(prior)
    if names := foreign_names(prior, "diffusers"):
        if names & {"DDPMPipeline", "DDIMPipeline"}:
            return lookup(OF_OTHERS, "pipeline", "prior")(prior)
        remedy = (
            "it works on latents or needs more than an image: give a DDPMPipeline"
            if "DiffusionPipeline" in names else
            "a network does not know its noise levels: give diffusers.DDPMPipeline(network, "
            "scheduler), with the scheduler that it was trained with"
        )
        raise SettingError(f"{type(prior).__name__} of diffusers is not a prior: {remedy}")
    return lookup(OF_OTHERS, "denoiser", "prior")(prior) if _takes_level(prior) else prior


def _takes_level(prior: Any) -> bool:
    """Whether an object is a function (images, noise level); a network must name the level."""
    is_module = isinstance(prior, nn.Module)
    function = prior.forward if is_module else prior
    if isinstance(prior, type) or not callable(function):
        return False
    try:
        signature = inspect.signature(function)
        signature.bind(None, None)
    except (TypeError, ValueError):
        return False
    level = list(signature.parameters)[1:2]
    return not is_module or any(word in name for name in level for word in ("sigma", "noise"))


def for_channels(prior: object, channels: int) -> object:
    """Returns a prior for images of some channels; two channels are a complex image.

    A denoiser of one or three channels is wrapped: it takes the two parts as grey images.
    """
    own = getattr(prior, "channels", None)
    is_network = isinstance(prior, Denoiser) and not isinstance(prior, Gaussian)
    if channels == 2 and is_network and own in (1, 3):
        return lookup(OF_OTHERS, "complex", "prior")(prior)
    return prior


@lru_cache(maxsize=1)  # else a loop over files would load the weights for each
def _load_cached(where: str | Path, written: int, device: torch.device) -> nn.Module:
    with torch.inference_mode(False):  # later calls may need gradients
        return load_described(where)[0].to(device)


def _evaluation_copy(prior: nn.Module) -> nn.Module:
    """Returns a copy in evaluation mode that shares the weights."""
    values = [value for module in prior.modules() for value in vars(module).values()]
    tensors = [
        *prior.parameters(), *prior.buffers(), *(v for v in values if isinstance(v, Tensor)),
    ]
    try:
        return copy.deepcopy(prior, {id(tensor): tensor for tensor in tensors}).eval()
    except (TypeError, RuntimeError) as error:
        raise SettingError(
            f"{type(prior).__name__} is in training mode and cannot be copied ({error}): call "
            f".eval() first"
        ) from error


def as_operator(
    operator: Any, image_shape: tuple[int, ...] | None = None
) -> Operator:
    """Returns an operator as it is, or wraps a physics of deepinv.

    Denoising and inpainting of deepinv are replaced by the equivalent operators of genprior.

    Arguments:
        operator: The operator, or the physics, linear or not.
        image_shape: Shape (C, H, W) of the images of a physics; None determines it.

    Raises:
        TypeError: The argument is neither.
    """
    if isinstance(operator, Operator):
        return operator
    equivalent: Operator | None = None
    if is_instance(operator, "deepinv.physics.Physics") and not is_instance(
        operator, "deepinv.physics.LinearPhysics"
    ):
        return make_operator("nonlinear", A=operator, image_shape=image_shape)
    if is_exactly(operator, "deepinv.physics.Denoising"):
        equivalent = make_operator("denoise")
    elif is_exactly(operator, "deepinv.physics.Inpainting"):
        mask = operator.mask
        with suppress(ValueError):  # its mask is not binary, or nothing is missing
            equivalent = make_operator("inpaint", keep=mask[None] if mask.ndim == 3 else mask)
    if equivalent is None:
        return make_operator("external", physics=operator, image_shape=image_shape)
    equivalent.measures_images = False
    return equivalent


def operator_on(operator: Any, device: torch.device) -> Any:
    """Returns the operator on a device; an operator elsewhere is copied, not moved."""
    buffers = operator.buffers() if isinstance(operator, nn.Module) else ()
    if any(b.device != device or b.is_inference() for b in buffers):
        operator = copy.deepcopy(operator).to(device)
    return operator


def default_solver(operator: Operator, prior: object, samples: int) -> str:
    """Returns the name of the default solver.

    For one sample it is a point estimate. For several samples of a denoiser it is the best
    calibrated sampler with a hundred evaluations (benchmarks/results/calibration.md). Gaussian
    priors are always sampled exactly, unless the operator is not linear. Then it is a point
    estimate by proximal maps for measurements that are images, and for one sample of data with
    several minima; DAPS for any other. A grey image is colorized by one sample, since the mean of
    all possible colours is nearly grey.

    Raises:
        SettingError: The prior has no ability that a solver could use.
    """
    if isinstance(prior, ConditionalGenerator):
        return "amortized"
    if isinstance(prior, Denoiser) and not operator.is_linear:
        if operator.has_several_minima and samples == 1:
            return "hqs"
        if operator.is_differentiable and not operator.is_pointwise:
            return "daps"
        if samples > 1:
            return "diffpir"
        return "hqs" if operator.is_differentiable else "dithered-mean"
    if isinstance(prior, Gaussian):
        return "gaussian"
    if isinstance(prior, Denoiser):
        if samples > 1:
            return "moment-matched"
        if isinstance(operator, ColourFilter) and operator.is_uniform:
            return "diffpir"
        image = operator.is_identity or operator.is_noisy_image
        return "posterior-mean" if image else "hqs"
    if isinstance(prior, LatentDenoiser):
        return "latent-daps"
    if isinstance(prior, Density) and samples == 1:
        return "map"
    if isinstance(prior, Decoder):
        if samples > 1:
            return "langevin"
        if isinstance(prior, Variational):
            return "jpmap"
        is_network = isinstance(prior, nn.Module)
        return "iagan" if is_network and operator.is_linear else "csgm"
    if isinstance(prior, Density):
        return "image-langevin"
    needed = {lookup(SOLVERS, name, "solver").needs for name in SOLVERS}
    raise SettingError(
        f"no solver takes a {type(prior).__name__}: give a prior that has one of the abilities "
        f"{', '.join(ability for ability, cls in ABILITIES.items() if cls in needed)}, or wrap "
        f"a function of images and a noise level in genprior.priors.external.callable.External"
    )


def choose_solver(
    solver: str | Solver | None, steps: int | None, operator: Operator, prior: object, samples: int
) -> tuple[str, Solver]:
    """Returns the name of the solver of a restoration, and the solver.

    Arguments:
        solver: Name, "auto", object, or None for "auto".
        steps: See `make_solver`; not used if "auto" chooses a solver without steps, see
            `ignored_steps`.
        operator: The operator, used by "auto".
        prior: The prior, used by "auto".
        samples: Number of samples that are drawn.

    Raises:
        ValueError: The solver or its setting does not exist, `steps` is given together with a
            solver object, or several samples are requested of a deterministic solver.
    """
    if isinstance(solver, Solver):
        if steps is not None:
            raise SettingError("steps is for solvers given by name: set it in the solver object")
        name, method = type(solver).__name__, solver
    else:
        if solver is not None and not isinstance(solver, str):
            raise SettingError(
                f"solver must be a name, or an object such as make_solver('hqs'), got {solver!r}"
            )
        name = solver or "auto"
        if name == "auto":
            name = default_solver(operator, prior, samples)
            steps = steps if _has_steps(lookup(SOLVERS, name, "solver")) else None
        method = make_solver(name, steps)
    if samples > 1 and not method.stochastic:
        samplers = [other for other in SOLVERS if lookup(SOLVERS, other, "solver").stochastic]
        raise SettingError(
            f"solver {name} returns one image, not {samples} posterior samples: "
            f"choose one of {', '.join(samplers)}"
        )
    return name, method


def suited_solvers(
    method: Solver, quality: Quality, y: Tensor, operator: Operator, prior: object,
    noise_std: Tensor,
) -> list[Solver]:
    """Returns the solver with as many evaluations as each measurement takes.

    Arguments:
        method: The solver that was chosen, with its default settings.
        quality: See `Solver.suited`.
        y: Measurements, shape (B, ...).
        operator: Their operator.
        prior: The prior.
        noise_std: Noise levels, shape (B,).

    Raises:
        SettingError: The quality does not exist.
    """
    if quality not in get_args(Quality):
        raise SettingError(
            f"quality must be one of {', '.join(get_args(Quality))}, got {quality!r}"
        )
    return [
        method.suited(y[i : i + 1], operator.select([i]), prior, sigma, quality)
        for i, sigma in enumerate(noise_std.tolist())
    ]


def ignored_steps(
    solver: str | Solver | None, steps: int | None, method: Solver
) -> tuple[str, ...]:
    """Returns a warning if `choose_solver` did not use the given steps.

    Arguments:
        solver, steps: As given to `choose_solver`.
        method: The solver that it returned.
    """
    if steps is None or solver not in (None, "auto") or _has_steps(type(method)):
        return ()
    return (
        f"steps {steps} is not used: {type(method).__name__}, the default solver here, has no "
        f"steps; choose a solver that has, such as diffpir",
    )


def ignored_quality(quality: Quality, method: Solver) -> tuple[str, ...]:
    """Returns a warning if a solver takes as many evaluations for each quality."""
    if quality == "default" or type(method).suited is not Solver.suited:
        return ()
    remedy = "set steps" if _has_steps(type(method)) else "choose another solver"
    return (f"quality {quality!r} is not used: {type(method).__name__} takes as many evaluations "
            f"for each quality; {remedy}",)


def _has_steps(solver: type[Solver]) -> bool:
    return "steps" in {field.name for field in fields(solver)}


def load_checkpoint(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuilds the prior of a checkpoint.

    Arguments:
        folder: Checkpoint folder, or the folder of a training run, for its newest checkpoint.

    Returns:
        The prior (float32, evaluation mode, on the CPU) and the manifest.

    Raises:
        CheckpointError: There is no checkpoint, or it is corrupt.
    """
    folder = newest(folder)
    manifest = read_manifest(folder)
    try:
        cls = lookup(PRIORS, manifest["prior"], "prior")
        build = getattr(cls, "from_config", cls)
        stored = stored_shapes(folder, manifest)
        expected = shapes_of(build, manifest["config"], len(stored))
    except CheckpointError:
        raise
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"the prior in {folder} cannot be built ({error}): update genprior, or train it again"
        ) from error
    if stored != expected:
        check_sums(folder, manifest)  # damage may have changed a header
        raise CheckpointError(f"weights in {folder} do not fit the configuration in its manifest")
    tensors = read_model(folder, manifest)
    with torch.random.fork_rng(devices=[]):  # the initial random weights are discarded
        prior = build(**manifest["config"])
    prior.load_state_dict({key: _single(folder, key, value) for key, value in tensors.items()})
    prior = prior.float().to(memory_format=torch.channels_last)  # convolutions are faster
    prior.sample_size = _sample_size(manifest) if isinstance(prior, Trainable) else None
    if isinstance(prior, Denoiser):
        flip, turn = (manifest.get(key, True) for key in ("flip", "turn"))
        prior.symmetries = [k for k in prior.symmetries
                            if (flip or k < 4) and (turn or k % 4 == 0)]
    return prior.eval().requires_grad_(False), manifest


def _single(folder: Path, key: str, value: Tensor) -> Tensor:
    """Returns a weight in single precision."""
    single = value.to(torch.float32)
    if value.dtype == torch.float64 and not torch.equal(single.isinf(), value.isinf()):
        raise CheckpointError(
            f"weights in {folder} are too large for float32 in {key}: train it again"
        )
    return single


def _sample_size(manifest: dict[str, Any]) -> tuple[int, int] | None:
    """Returns height and width of the images that `sample` draws by default; None for its own.

    Manifests of earlier versions tell the size of the training crops only. It is also that of the
    images if no crop was cut larger and downsampled, as for the digits.
    """
    size = manifest.get("sample_size")
    if size is None and manifest.get("scale") is False:
        size = [manifest.get("crop")] * 2
    if not isinstance(size, list) or len(size) != 2:
        return None
    fits = all(isinstance(side, int) and 1 <= side <= LARGEST_SAMPLE for side in size)
    return (size[0], size[1]) if fits else None


BORDER = 3


def solver_for_task(
    solver: str | Solver | None, steps: int | None, operator: Operator, prior: object,
    samples: int, task: str, prior_name: str | None,
) -> tuple[str, str | Solver | None, int | None]:
    """Returns the name of the solver of a task, and `solver` and `steps` for `restore`.

    They are those given, but to inpaint with a texture prior the solver is conditioned on border
    pixels only: a texture that is estimated from the image itself and conditioned on all of its
    known pixels reproduces that image, hole included. Galerne and Leclaire (2017) condition on
    the pixels near the hole only.

    Arguments:
        solver, steps, operator, prior, samples: As in `choose_solver`.
        task: Name of the task.
        prior_name: Name of the prior.
    """
    name, _ = choose_solver(solver, steps, operator, prior, samples)
    if (task, name) == ("inpaint", "gaussian") and prior_name in FROM_EXEMPLAR:
        return name, make_solver(name, border=BORDER), None
    return name, solver, steps
