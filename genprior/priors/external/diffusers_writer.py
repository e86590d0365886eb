"""Writing of a diffusers folder: networks, scheduler, and what a prompt needs.

    unet/, vae/ of latent diffusion, scheduler/, model_index.json
"""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from genprior.core.errors import CheckpointError
from genprior.priors.external.diffusers_folder import (
    DISCRETE,
    SCHEDULER,
    import_diffusers,
    read_scheduler,
)
from genprior.priors.external.weight_files import CONFIG, PIPELINE, SETTINGS, folder_of

# Entries of a configuration that tell where a network was read from.
OF_THE_MACHINE = ("_name_or_path",)
TEXT = ("text_encoder", "tokenizer")


def write_folder(prior: nn.Module, about: dict[str, Any], source: Path, target: Path) -> None:
    """Writes a prior that was loaded from a diffusers folder to another one, as safetensors.

    A LoRA file that was added is part of the weights. The embeddings of the prompts are kept; the
    text encoder too, unless the LoRA file changes it.

    Arguments:
        prior: The prior.
        about: Its description, as returned by `genprior.priors.external.load`.
        source: The folder from which it was loaded, or a file in it.
        target: An existing folder.

    Raises:
        CheckpointError: The prior is from no folder of diffusers.
    """
    source = source if source.is_dir() else source.parent
    network: Any = getattr(prior, "network", None)
    if about.get("format") != "diffusers" or network is None:
        raise CheckpointError(f"{source}: its prior is from no folder of diffusers")
    if "control" in about:
        raise CheckpointError(
            f"{source}: a ControlNet has a folder of its own: export the prior without control"
        )
    version = import_diffusers(source).__version__
    parts: dict[str, Any] = {"unet": network, "vae": getattr(prior, "autoencoder", None)}
    for name, part in parts.items():
        if part is not None:
            part.save_pretrained(target / name)
            _forget_machine(target / name / CONFIG)
    scheduler = read_scheduler(source, folder_of(source) or source)
    (target / "scheduler").mkdir()
    _write(target / "scheduler" / SCHEDULER, scheduler)
    changed = TEXT[0] in about.get("lora", {}).get("changes", ())
    if (source / PIPELINE).is_file() and not changed:
        shutil.copy(source / PIPELINE, target / PIPELINE)
    elif parts["vae"] is None and DISCRETE.fullmatch(scheduler["_class_name"]):
        _write(target / PIPELINE, {
            "_class_name": "DDPMPipeline", "_diffusers_version": version,
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "unet": ["diffusers", type(network).__name__],
        })
    if parts["vae"] is None:
        settings = {"class_label": about["class_label"]}
    else:
        _write_prompt(prior, target)
        for name in TEXT if not changed else ():
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name)
        settings = {"guidance": about["guidance"] if about["guidance"] != 1 else None}
    settings = {key: value for key, value in settings.items() if value is not None}
    if settings:
        _write(target / SETTINGS, settings)


def _write_prompt(prior: Any, target: Path) -> None:
    """Writes the embeddings of the prompts of latent diffusion, if it has any."""
    texts: dict[str, Tensor | None] = {"prompt": prior.prompt, "negative": prior.negative}
    embeddings = {name: text.contiguous() for name, text in texts.items() if text is not None}
    if embeddings:
        save_file(embeddings, target / "prompt.safetensors")


def _forget_machine(file: Path) -> None:
    config = json.loads(file.read_text())
    _write(file, {key: value for key, value in config.items() if key not in OF_THE_MACHINE})


def _write(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n")
