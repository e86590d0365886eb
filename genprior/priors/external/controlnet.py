"""ControlNet in the folder format of diffusers: an image that steers latent diffusion.

    F(z, t, prompt) + residuals of a ControlNet for (z, t, prompt, control image)

The control image (edges, depth, a sketch, a pose; what the ControlNet was trained with) shows the
layout of the image to restore or to draw, and has its size. It is in [0, 1], mirrored at its right
and lower border to the size that the autoencoder pads images to.

References:
    Adding Conditional Control to Text-to-Image Diffusion Models, Zhang et al., 2023.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from genprior.core.checksums import file_digest
from genprior.core.errors import CheckpointError
from genprior.priors.external.diffusers_folder import CONFIG, load_network, read_config
from genprior.priors.nets.padding import pad_to_multiple

SHARED = (
    "in_channels", "block_out_channels", "layers_per_block", "down_block_types",
    "cross_attention_dim",
)


class Control(nn.Module):
    """A ControlNet with its control image.

    Arguments:
        network: A ControlNetModel of diffusers.
        image: Control image in [0, 1], shape (1, 3, H, W).
        scale: Factor of the residuals, >= 0.
        source: Folder of the ControlNet and file of the image, for descriptions.
    """

    def __init__(
        self, network: nn.Module, image: Tensor, scale: float, source: tuple[Path, Path]
    ) -> None:
        super().__init__()
        self.network, self.scale, self.source = network, scale, source
        self.register_buffer("image", image)

    def forward(self, z: Tensor, t: Tensor, states: Tensor, multiple: int, factor: int) -> dict:
        """Returns the arguments of the UNet that add the residuals.

        Arguments:
            z: Latents, shape (B, C, H / factor, W / factor), H and W padded.
            t: Time steps, shape (B,).
            states: Embedding of the prompt, shape (B, tokens, width).
            multiple: The autoencoder pads images to multiples of this.
            factor: Pixels per latent.

        Raises:
            ValueError: The control image has another size than the images.
        """
        image, _ = pad_to_multiple(self.image.to(z), multiple)
        size, wanted = tuple(image.shape[2:]), tuple(factor * n for n in z.shape[2:])
        if size != wanted:
            raise ValueError(
                f"the control image has {self.image.shape[3]} x {self.image.shape[2]} pixels, "
                f"and the image (padded) {wanted[1]} x {wanted[0]}: they must have the same size"
            )
        down, middle = self.network(
            z, t, encoder_hidden_states=states, controlnet_cond=image.expand(len(z), -1, -1, -1),
            conditioning_scale=self.scale, return_dict=False,
        )
        return {"down_block_additional_residuals": down,
                "mid_block_additional_residual": middle}

    def describe(self) -> dict[str, Any]:
        """Returns what `genprior priors info` prints about the control."""
        folder, file = self.source
        return {"control": {"folder": folder.name, "image": file.name,
                            "image_sha256": file_digest(file), "scale": self.scale,
                            "size": list(self.image.shape[2:])}}


def load_control(folder: Path, image: Path, scale: float, unet: Any) -> Control:
    """Loads a ControlNet and its control image, without running code.

    Arguments:
        folder: Folder of a ControlNetModel.
        image: Image file that Pillow reads, 8 bits, grey or colour.
        scale: Factor of the residuals.
        unet: Configuration of the UNet that it controls.

    Raises:
        CheckpointError: The folder holds something else, or a ControlNet for another UNet; or the
            image cannot be read.
    """
    config = read_config(folder)
    if config.get("_class_name") != "ControlNetModel":
        raise CheckpointError(
            f"{folder}: holds a {config.get('_class_name')}, not a ControlNetModel: give the "
            f"folder of a ControlNet"
        )
    from diffusers import ControlNetModel

    network = load_network(folder, config, ControlNetModel)
    for name in SHARED:
        theirs, ours = (_plain(c.get(name)) for c in (network.config, unet))
        if theirs != ours:
            raise CheckpointError(
                f"{folder}: {CONFIG} has {name} {theirs}, and the UNet {ours}: the ControlNet is "
                f"for another model"
            )
    try:
        with Image.open(image) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(f"control image {image} cannot be read ({reason})") from error
    control = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    return Control(network.eval(), control, scale, (folder, image))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
