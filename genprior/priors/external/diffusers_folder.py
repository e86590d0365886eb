"""Reading of a diffusers folder: configuration, scheduler, and networks of checked shapes."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import nn

from genprior.core.errors import CheckpointError
from genprior.core.records import read_json
from genprior.priors.arguments import at_most
from genprior.priors.external.edm_preconditioning import EDMPreconditioning
from genprior.priors.external.flow_matching import FlowMatching
from genprior.priors.external.variance_preserving import VariancePreserving
from genprior.priors.external.weight_files import CONFIG, PIPELINE, UNREADABLE, open_weights

SCHEDULER, WEIGHTS = "scheduler_config.json", "diffusion_pytorch_model"
# Attention layers in files of diffusers before 0.12, which it renames.
NEW_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.",
             ".proj_attn.": ".to_out.0."}
OLD_NAMES = re.compile("|".join(map(re.escape, NEW_NAMES)))
EXPLODING = "ScoreSdeVeScheduler"
EDM = re.compile(r"EDM(Euler|DPMSolverMultistep)Scheduler")
FLOW = re.compile(r"FlowMatch(Euler|Heun)DiscreteScheduler")
# Schedulers whose settings describe the training of DDPM; they differ in their samplers only.
DISCRETE = re.compile(
    r"(DDPM|DDIM|DDIMInverse|PNDM|LMSDiscrete|EulerDiscrete|EulerAncestralDiscrete|Heun\w*|"
    r"DPMSolver\w*|UniPC\w*|DEIS\w*|KDPM2\w*|RePaint)Scheduler"
)


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the configuration of a network; raises CheckpointError if it cannot be read."""
    try:
        return read_json(folder / CONFIG, dict[str, Any])
    except (OSError, ValueError) as error:
        kind = ""
        if (folder / PIPELINE).exists():
            index = read_json(folder / PIPELINE, dict[str, Any])
            kind = f" (a {index.get('_class_name')})"
        raise CheckpointError(
            f"{folder}{kind}: {CONFIG} of a network cannot be read ({error})"
        ) from error


def read_scheduler(path: Path, folder: Path) -> dict[str, Any]:
    """Returns the settings of the scheduler; raises CheckpointError if there are none.

    Arguments:
        path: The folder of the pipeline.
        folder: That of its network.
    """
    places = [path / "scheduler", folder, path, folder.parent / "scheduler"]
    file = next((p / SCHEDULER for p in places if (p / SCHEDULER).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{path}: there is no scheduler/{SCHEDULER}, which holds the noise levels that the "
            f"network was trained for: download it too"
        )
    try:
        return read_json(file, dict[str, Any])
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error


def load_network(folder: Path, config: Mapping[str, Any], kind: Any) -> nn.Module:
    """Loads a network of diffusers, after comparing its shapes without memory for them.

    Arguments:
        folder: Folder of its configuration and weights.
        config: Its configuration.
        kind: Its class.

    Raises:
        CheckpointError: The weights are missing, damaged, or not those of the configuration.
    """
    stored = _stored_shapes(folder)
    try:
        with torch.device("meta"), at_most(2 * len(stored) + 100):
            expected = {k: v.shape for k, v in kind.from_config(dict(config)).state_dict().items()}
    except (TypeError, *UNREADABLE) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder}: {CONFIG} describes no network with its {len(stored)} tensors "
            f"({reason:.160})"
        ) from error
    renamed = {OLD_NAMES.sub(lambda found: NEW_NAMES[found[0]], k): v for k, v in stored.items()}
    wrong = sorted(key for key in {*expected, *renamed}
                   if not _same_size(expected.get(key), renamed.get(key)))
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} tensors do not fit {CONFIG} ({wrong[0]} ...): the folder is "
            f"incomplete, or was written by another version of diffusers"
        )
    try:
        return kind.from_pretrained(
            folder, local_files_only=True, low_cpu_mem_usage=False, torch_dtype=torch.float32,
            use_safetensors=any(folder.glob(f"{WEIGHTS}*.safetensors")),  # else it logs an error
        )
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder}: its weights cannot be loaded ({reason:.160}); nothing in them was run"
        ) from error


def _same_size(a: torch.Size | None, b: torch.Size | None) -> bool:
    """Whether two shapes have as many numbers: old attention layers were 1 x 1 convolutions."""
    return a is not None and b is not None and a.numel() == b.numel() and a[0:1] == b[0:1]


def _stored_shapes(folder: Path) -> dict[str, torch.Size]:
    """Returns the shapes of the weights in a folder, from the headers of its files.

    As in diffusers, safetensors files are preferred to pickled ones.

    Raises:
        CheckpointError: There are none, or they cannot be read.
    """
    names = [f"{WEIGHTS}.safetensors", f"{WEIGHTS}*-of-*.safetensors", f"{WEIGHTS}.bin",
             f"{WEIGHTS}*-of-*.bin"]
    files = next((found for name in names if (found := sorted(folder.glob(name)))), [])
    if not files:
        raise CheckpointError(f"{folder}: its weights cannot be loaded: there is no {names[0]}")
    shapes: dict[str, torch.Size] = {}
    for file in files:
        try:
            if file.suffix == ".bin":
                shapes |= {key: value.shape for key, value in open_weights(file).tensors.items()}
                continue
            with safetensors.safe_open(file, "pt") as opened:
                shapes |= {key: torch.Size(opened.get_slice(key).get_shape())
                           for key in opened.keys()}
        except (safetensors.SafetensorError, OSError, CheckpointError) as error:
            raise CheckpointError(f"{folder}: its weights cannot be loaded ({error})") from error
    return shapes


def import_diffusers(path: Path) -> Any:
    """Returns the package diffusers; raises CheckpointError if it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise CheckpointError(
            f"{path}: a folder of diffusers is loaded by that package, which is not installed: "
            f'pip install "genprior[diffusers]"'
        ) from None
    return diffusers


def noise_levels(
    path: Path, scheduler: Mapping[str, Any], config: Mapping[str, Any]
) -> VariancePreserving | FlowMatching | EDMPreconditioning | None:
    """Returns the noise levels of the training; None for a score model (variance-exploding).

    Arguments:
        path: The folder, for messages.
        scheduler: The settings of its scheduler.
        config: The configuration of its network.

    Raises:
        CheckpointError: The scheduler is not supported.
    """
    name = str(scheduler.get("_class_name"))
    if FLOW.fullmatch(name):
        return FlowMatching(data_at=0, scale=float(scheduler.get("num_train_timesteps", 1000)))
    fourier = config.get("time_embedding_type") == "fourier"
    if EDM.fullmatch(name) and not fourier:  # its times ln(s) / 4 may be negative
        return _edm(path, scheduler)
    if name == EXPLODING and fourier:
        return None
    if not DISCRETE.fullmatch(name):
        raise CheckpointError(
            f"{path}: scheduler {name} is not supported with a "
            f"{config.get('time_embedding_type', 'positional')} time embedding: it must be "
            f"{EXPLODING} with a fourier one, or one of DDPM (DDPMScheduler, DDIMScheduler ...), "
            f"of flows (FlowMatchEulerDiscreteScheduler) or of EDM (EDMEulerScheduler) with a "
            f"positional one"
        )
    from diffusers import DDPMScheduler

    known = inspect.signature(DDPMScheduler.__init__).parameters
    settings = {key: value for key, value in scheduler.items() if key in known}
    settings.pop("variance_type", None)  # concerns its sampler only
    try:
        levels = DDPMScheduler(**settings).alphas_cumprod
        prediction = scheduler.get("prediction_type", "epsilon")
        table = config.get("time_embedding_type") == "learned"
        return VariancePreserving(levels, prediction, whole_steps=table)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: its scheduler cannot be used: {error}") from error


def _edm(path: Path, scheduler: Mapping[str, Any]) -> EDMPreconditioning:
    sign = {"epsilon": 1, "v_prediction": -1}.get(scheduler.get("prediction_type", "epsilon"))
    if sign is None:
        raise CheckpointError(
            f"{path}: its scheduler predicts {scheduler['prediction_type']}, and a network in the "
            f"preconditioning of EDM must predict epsilon or v_prediction"
        )
    levels = scheduler.get("sigma_min", 0.002), scheduler.get("sigma_max", 80.0)
    try:
        return EDMPreconditioning(scheduler.get("sigma_data", 0.5), sign, levels)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its scheduler cannot be used: {error}") from error


def stated_licence(path: Path) -> str | None:
    """Returns the licence that a model card states in its header."""
    card = path / "README.md"
    text = card.read_text(errors="replace") if card.is_file() else ""
    header = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    match = re.search(r"^license:\s*(\S+)", header, re.MULTILINE)
    return match[1] if match else None
