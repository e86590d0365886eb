"""Restoration as a transform of images, for pipelines in the manner of torchvision.

    transforms.Compose([PILToTensor(), genprior.transforms.Restore("denoise", noise_std=0.1)])
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from genprior.api.factory import load_prior, make_operator
from genprior.api.restoration import restore
from genprior.operators.base import Operator

# Options of `restore` that need a look at the whole result, or are given in another way.
_OTHER = ("samples", "keep_samples", "quantiles", "index")


class Restore(nn.Module):
    """Transform that restores an image: a Pillow image, tensor or array to one of the same type.

    The prior is loaded once, when the transform is made. It can be pickled, so worker processes
    of a `DataLoader` can use it on the CPU.

    Arguments:
        operator: Operator of all images; or the name of one that needs no settings, "denoise"; or
            a function that returns the operator for an image, for example by its size.
        prior: Name, checkpoint folder or object; see `genprior.load_prior`.
        options: Further arguments of `genprior.restore`, such as `noise_std`, `solver`, `steps`,
            `seed` or `device`.

    Raises:
        TypeError: An option is not one of `genprior.restore`, or asks for several samples.
        ValueError: There is no such operator or prior.

    >>> Restore("denoise", noise_std=0.1, steps=4)
    Restore(Denoising, prior=ddpm, noise_std=0.1, steps=4)
    """

    def __init__(
        self, operator: str | Operator | Callable[[Any], Operator],
        prior: str | Path | object = "ddpm", **options: Any,
    ) -> None:
        import inspect

        super().__init__()
        known = set(inspect.signature(restore).parameters) - {"y", "operator", "prior", *_OTHER}
        for name in options:
            if name not in known:
                raise TypeError(
                    f"Restore takes no {name!r}: choose among {', '.join(sorted(known))}, or call "
                    f"genprior.restore"
                )
        self.operator = make_operator(operator) if isinstance(operator, str) else operator
        self.prior_name = str(prior) if isinstance(prior, str | Path) else type(prior).__name__
        # In a list it is no submodule: a state_dict of the pipeline does not hold its weights.
        self._prior = [load_prior(prior) if isinstance(prior, str | Path) else prior]
        self.options = options

    def forward(self, image: Any) -> Any:
        """Returns the restored image, or batch of images, in the type of `image`."""
        operator: Any = self.operator
        if not isinstance(operator, Operator) and not hasattr(operator, "A_adjoint"):
            operator = operator(image)
        return restore(image, operator, self._prior[0], **self.options).image

    def __repr__(self) -> str:
        name = getattr(self.operator, "__name__", type(self.operator).__name__)
        options = "".join(f", {key}={value!r}" for key, value in self.options.items())
        return f"Restore({name}, prior={self.prior_name}{options})"
