"""Export of a trained prior for others: weights, manifest, model card, samples, and ONNX.

    model.safetensors, manifest.json   the checkpoint, without the state of its training
    README.md                          model card: use, data, licence, quality, settings
    samples.png                        images drawn from the prior
    denoiser.onnx                      optional: (x, sigma) -> denoised images, any size

A prior from a folder of diffusers is written as such a folder, in place of a checkpoint.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genprior.api.factory import load_checkpoint
from genprior.api.sampling import sample
from genprior.core.atomic_files import new_folder
from genprior.core.errors import CheckpointError, SettingError
from genprior.io.images import write_image
from genprior.io.panels import grid
from genprior.priors.base import Denoiser, Gaussian
from genprior.priors.checkpoint import newest, read_manifest, read_model, save_checkpoint
from genprior.priors.external import is_external, load, local_copy, split_format
from genprior.priors.external.diffusers_writer import write_folder
from genprior.registry import find_prior

CARD, SAMPLES, ONNX = "README.md", "samples.png", "denoiser.onnx"
# Largest difference between torch and onnxruntime, in units of the image range [0, 1].
ONNX_TOLERANCE = 1e-4
# Entries of a manifest that hold measured quality, and their titles.
QUALITY = {"denoising_psnr": "Denoising", "measured": "Measured", "best": "Best checkpoint",
           "quality": "Quality"}
# Entries that describe the training.
TRAINING = ("images", "crop", "resize", "scale", "flip", "turn", "init", "teacher", "step",
            "seconds", "training", "filler", "unrolled", "settings", "machine", "versions", "seed")


def export_prior(
    source: str | Path, target: Path, summary: str = "", licence: str = "", count: int = 16,
    steps: int = 100, onnx: bool = False,
) -> None:
    """Writes a prior with its model card to a folder, which `load_prior` takes.

    Arguments:
        source: Checkpoint folder, folder of a training run, or name of a shipped prior.
        target: The new folder. It appears when it is complete.
        summary: One line about the prior; "" keeps that of the manifest.
        licence: Licence of the weights, an identifier of the Hugging Face Hub such as "mit" or a
            text; "" keeps that of the manifest.
        count: Images of the sample grid, >= 1.
        steps: Network evaluations per image of a diffusion prior, >= 1.
        onnx: Whether to write the denoiser as ONNX too.

    Raises:
        CheckpointError: There is no checkpoint, it is corrupt, or is one of another package.
        SettingError: ONNX is not possible, or a package for it is missing.
        OSError: The target exists, or cannot be written.
    """
    if is_external(local_copy(source)):
        raise CheckpointError(
            f"{source}: is in the format of another package, and a checkpoint of genprior cannot "
            f"hold it: share it as it is, or a folder of diffusers with --format diffusers"
        )
    folder = newest(find_prior(source))
    prior, manifest = load_checkpoint(folder)
    about = {key: value for key, value in read_manifest(folder).items()
             if key not in ("schema", "prior", "config", "files")}
    about |= {key: value for key, value in (("summary", summary), ("licence", licence)) if value}
    images = sample(prior, count, steps=steps, device="cpu")
    with new_folder(target) as made:
        tensors = read_model(folder, manifest)
        save_checkpoint(made, manifest["prior"], manifest["config"], tensors, about=about)
        write_image(made / SAMPLES, grid(images))
        if onnx:
            export_onnx(prior, made / ONNX)
        card = model_card(target.name, read_manifest(made), prior, count, onnx)
        (made / CARD).write_text(card)


def export_diffusers(
    source: str | Path, target: Path, summary: str = "", licence: str = "", count: int = 16,
    steps: int = 100,
) -> None:
    """Writes a prior from a folder of diffusers to another one, with its model card.

    The weights become safetensors, a LoRA file is added to them, and `DDPMPipeline` of diffusers
    loads a diffusion model of pixels.

    Arguments:
        source: Folder of diffusers, a file in it, or "hf:ORG/NAME".
        target, summary, licence, count, steps: See `export_prior`.

    Raises:
        CheckpointError: The prior has another format, is corrupt, or diffusers is missing.
        OSError: The target exists, or cannot be written.
    """
    where = local_copy(source)
    found = load(where) if is_external(where) else None
    if found is None or found[1]["format"] != "diffusers":
        kind = found[1]["format"] if found else read_manifest(newest(find_prior(where)))["prior"]
        raise CheckpointError(
            f"{source}: diffusers has no class for the network of {kind}: --format diffusers is "
            f"for priors from a folder of diffusers (a UNet2DModel, or an AutoencoderKL with its "
            f"UNet); leave --format out to write a checkpoint of genprior"
        )
    prior, about = found
    images = sample(prior, count, steps=steps, device="cpu")
    with new_folder(target) as made:
        write_folder(prior, about, Path(split_format(where)[1]), made)
        manifest = load(made)[1] | {
            key: value or about.get(key) for key, value in
            (("summary", summary), ("licence", licence))
        }
        write_image(made / SAMPLES, grid(images))
        (made / CARD).write_text(model_card(target.name, manifest, prior, count))


def model_card(
    name: str, manifest: Mapping[str, Any], prior: nn.Module, count: int, onnx: bool = False
) -> str:
    """Returns the model card of a prior, Markdown with a YAML header.

    Arguments:
        name: Title.
        manifest: Manifest of the checkpoint.
        prior: The prior.
        count: Number of images in the sample grid.
        onnx: Whether there is a denoiser in ONNX.
    """
    licence = str(manifest.get("licence") or "")
    known = licence and " " not in licence
    parameters = sum(p.numel() for p in prior.parameters())
    sources = _listed(manifest.get("data"))
    earlier = [source for source in _listed(manifest.get("earlier_data")) if source not in sources]
    quality = [f"- {title}: {_line(manifest[key])}" for key, title in QUALITY.items()
               if manifest.get(key)]
    training = [f"- {key}: {_line(manifest[key])}" for key in TRAINING
                if manifest.get(key) is not None]
    lines = [
        "---",
        f"license: {licence if known else 'other'}",
        "library_name: genprior",
        "tags: [image-restoration, inverse-problems, generative-prior]",
        "---",
        f"# {name}",
        "",
        str(manifest.get("summary") or f"A `{manifest['prior']}` prior of genprior."),
        "",
        f"![{count} images drawn from the prior]({SAMPLES})",
        "",
        f"Prior `{manifest['prior']}` of [genprior](https://pypi.org/project/genprior), "
        f"{parameters} parameters, for image restoration. {count} images drawn from it are shown "
        f"above.",
        "",
        "```",
        "genprior inpaint photo.png --mask hole.png --prior FOLDER_OR_hf:ORG/NAME",
        "```",
        "",
        "## Training data",
        "",
        *([f"- {source}" for source in sources] or ["Not recorded."]),
        *(["", "Earlier, before the last run:", "", *(f"- {source}" for source in earlier)]
          if earlier else []),
        "",
        "## Licence",
        "",
        licence or "Not stated: ask the author before you use or share the weights.",
        "",
        "## Quality",
        "",
        *(quality or ["Not recorded; `genprior evaluate` measures it on your images."]),
        "",
        "## Training",
        "",
        *(training or ["Not recorded."]),
        "",
        "## Files",
        "",
        *(f"- `{file}`: {entry['bytes']} bytes, sha256 `{entry['sha256']}`"
          for file, entry in manifest["files"].items()),
    ]
    if onnx:
        lines += [
            f"- `{ONNX}`: inputs `x` (1, {getattr(prior, 'channels', 3)}, H, W) in [0, 1] with "
            f"noise, H and W multiples of {getattr(prior, 'stride', 1)}, and `sigma` (1,), the "
            f"noise level in the same unit; output `denoised`",
        ]
    return "\n".join([*lines, ""])


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value or [])


def _line(value: Any) -> str:
    """Returns a value of a manifest as text of one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_line(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_line, value))
    return " ".join(f"{value:.6g}".split() if isinstance(value, float) else str(value).split())


class _Denoiser(nn.Module):
    """The function that ONNX holds."""

    def __init__(self, prior: Denoiser) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.prior.denoise(x, sigma)


def export_onnx(prior: object, path: Path) -> None:
    """Writes a denoiser as ONNX for one image of any size, and compares it with torch.

    Arguments:
        prior: The denoiser, on the CPU.
        path: File to write.

    Raises:
        SettingError: The prior is not a network that denoises, onnx or onnxruntime is missing, or
            onnxruntime returns another image than torch.
    """
    if not (isinstance(prior, Denoiser) and isinstance(prior, nn.Module)) or isinstance(
        prior, Gaussian
    ):
        raise SettingError(
            f"ONNX is for networks that denoise, such as ddpm, and {type(prior).__name__} is none"
        )
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise SettingError(
            f'{error.name} is not installed: pip install "genprior[onnx]"'
        ) from None
    side, depth = prior.stride * 2, getattr(prior, "channels", None) or 3
    generator = torch.Generator().manual_seed(0)
    x, sigma = torch.rand(1, depth, side, 2 * side, generator=generator), torch.tensor([0.1])
    with warnings.catch_warnings(action="ignore"):  # about shapes, which the comparison covers
        torch.onnx.export(
            _Denoiser(prior).eval(), (x, sigma), str(path), input_names=["x", "sigma"],
            output_names=["denoised"], dynamo=False,
            dynamic_axes={name: {2: "height", 3: "width"} for name in ("x", "denoised")},
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for height, width, level in ((side, 2 * side, 0.1), (3 * side, side, 0.4)):
        x = torch.rand(1, depth, height, width, generator=generator)
        sigma = torch.tensor([level])
        with torch.no_grad():
            expected = prior.denoise(x, sigma)
        found = session.run(None, {"x": x.numpy(), "sigma": sigma.numpy()})[0]
        difference = (torch.as_tensor(found) - expected).abs().max().item()
        if not difference < ONNX_TOLERANCE:
            raise SettingError(
                f"onnxruntime differs from torch by {difference:.1e} on {height} x {width} "
                f"pixels: this prior cannot be written as ONNX"
            )


def push(folder: Path, name: str, private: bool = False) -> str:
    """Uploads a folder to the Hugging Face Hub; returns the address.

    Arguments:
        folder: The folder.
        name: "ORG/NAME" of the repository, created if it does not exist.
        private: Whether a new repository is private.

    Raises:
        CheckpointError: huggingface_hub is missing, or the upload failed.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise CheckpointError(
            'the upload needs huggingface_hub, which is not installed: pip install "genprior[hub]"'
        ) from None
    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True, private=private)
        return str(api.upload_folder(folder_path=str(folder), repo_id=name))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{folder} is written, but cannot be uploaded to {name} ({reason:.160}): log in with "
            f"hf auth login, and check the name"
        ) from error
