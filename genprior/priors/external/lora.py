"""LoRA files (DreamBooth, kohya) for the networks of latent diffusion, read by diffusers.

    W' = W + scale (alpha / rank) B A

A file holds A (rank, inputs) and B (outputs, rank) of some layers W of the network, and possibly
of the text encoder. The sum is computed once, so that the network costs as much as without it.

References:
    LoRA: Low-Rank Adaptation of Large Language Models, Hu et al., 2022.
    DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation, Ruiz et
        al., 2023.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from genprior.core.checksums import file_digest
from genprior.core.errors import CheckpointError
from genprior.priors.external.weight_files import read_tensors

NETWORK, TEXT = "unet", "text_encoder"


@dataclass(frozen=True)
class LoRA:
    """Changes of weights in a LoRA file.

    Arguments:
        path: The file.
        scale: Factor of the changes, >= 0.
        tensors: Its tensors, in the names of diffusers.
        alphas: Numbers alpha by layer; None where alpha is the rank.
    """

    path: Path
    scale: float
    tensors: Mapping[str, Tensor]
    alphas: Mapping[str, float] | None

    @property
    def has_text(self) -> bool:
        """Whether the file changes the text encoder too."""
        return bool(self._of(TEXT))

    def add_to_network(self, network: Any) -> None:
        """Adds the changes to a UNet2DConditionModel.

        Raises:
            CheckpointError: They are for another network.
        """
        prefix = NETWORK if self._of(NETWORK) or self.has_text else None
        if prefix and not self._of(NETWORK):
            return
        _loader()
        try:
            with _without_log():
                network.load_lora_adapter(
                    dict(self.tensors), prefix=prefix, network_alphas=_mutable(self.alphas),
                    adapter_name="lora",
                )
            self._check_count(network, len(self._of(prefix)), "the network")
            network.fuse_lora(lora_scale=self.scale)
            network.unload_lora()
        except (ValueError, RuntimeError, LookupError, AttributeError, TypeError) as error:
            raise self._unfit(error) from error

    def add_to_text_encoder(self, encoder: nn.Module) -> None:
        """Adds the changes, if there are any, to a CLIPTextModel of transformers.

        Raises:
            CheckpointError: They are for another encoder.
        """
        if not self.has_text:
            return
        try:
            with _without_log():
                _loader().load_lora_into_text_encoder(
                    dict(self.tensors), _mutable(self.alphas), encoder, prefix=TEXT,
                    lora_scale=self.scale, adapter_name="lora",
                )
            self._check_count(encoder, len(self._of(TEXT)), "the text encoder")
        except (ValueError, RuntimeError, LookupError, AttributeError, TypeError) as error:
            raise self._unfit(error) from error

    def describe(self) -> dict[str, Any]:
        """Returns what `genprior priors info` prints about the file."""
        parts = {NETWORK: not self.has_text or bool(self._of(NETWORK)), TEXT: self.has_text}
        return {
            "lora": {
                "file": self.path.name, "sha256": file_digest(self.path), "scale": self.scale,
                "changes": [name for name, changed in parts.items() if changed],
            }
        }

    def _of(self, prefix: str | None) -> list[str]:
        """Returns the names of the matrices of a part; None is the whole file."""
        return [key for key in self.tensors
                if (prefix is None or key.startswith(f"{prefix}.")) and "alpha" not in key]

    def _check_count(self, changed: nn.Module, matrices: int, what: str) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        found = sum(isinstance(layer, BaseTunerLayer) for layer in changed.modules())
        if 2 * found != matrices:
            raise ValueError(f"{found} of the {matrices // 2} layers in the file are in {what}")

    def _unfit(self, error: Exception) -> CheckpointError:
        reason = " ".join(str(error).split())
        return CheckpointError(
            f"{self.path}: does not fit the prior ({reason:.160}): it was trained for another one"
        )


def read_lora(path: Path, scale: float) -> LoRA:
    """Reads a LoRA file, without running code; see `LoRA`.

    Raises:
        CheckpointError: The file cannot be read, holds something else, or peft is missing.
    """
    tensors = read_tensors(path)
    loader = _loader()
    try:
        with _without_log():
            found, alphas = loader.lora_state_dict(tensors)
    except (ValueError, RuntimeError, LookupError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: diffusers cannot read it ({reason:.160})") from error
    if not any("lora" in key for key in found):
        raise CheckpointError(f"{path}: is no LoRA file: its tensors have no names with lora")
    return LoRA(path, scale, found, alphas)


def _loader() -> Any:
    """Returns diffusers' reader of LoRA files; raises CheckpointError if peft is missing."""
    try:
        import peft  # noqa: F401
        from diffusers.loaders import StableDiffusionLoraLoaderMixin
    except ImportError:
        raise CheckpointError(
            'LoRA files are added by peft, which is not installed: pip install "genprior[lora]"'
        ) from None
    return StableDiffusionLoraLoaderMixin


@contextmanager
def _without_log() -> Iterator[None]:
    """Keeps diffusers from writing to standard error what the exceptions tell."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _mutable(alphas: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if alphas is None else dict(alphas)
