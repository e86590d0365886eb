"""Inpainting of a photo with half of its pixels missing.

Prints the PSNR of the restoration and of a biharmonic fill. Expected with the default weights:
33.38 dB and 31.26 dB, in about a minute on two cores.
"""

import numpy as np
import skimage

import genprior


def main(size: int = 256, steps: int | None = None) -> tuple[float, float]:
    """Returns the PSNR of genprior and of the biharmonic fill, in dB."""
    from genprior.operators.masks import random_keep

    photo = skimage.data.coffee()[100 : 100 + size, 250 : 250 + size] / 255.0
    keep = random_keep((1, 3, size, size), missing=0.5)
    operator = genprior.make_operator("inpaint", keep=keep)
    y = genprior.degrade(photo, operator)
    result = genprior.restore(y, operator, steps=steps)
    missing = ~keep[0, 0].numpy()
    fill = skimage.restoration.inpaint_biharmonic(y, missing, channel_axis=-1)
    psnr = skimage.metrics.peak_signal_noise_ratio
    return tuple(psnr(photo, np.clip(x, 0, 1), data_range=1) for x in (result.image, fill))


if __name__ == "__main__":
    print("genprior {:.2f} dB, biharmonic {:.2f} dB".format(*main()))
