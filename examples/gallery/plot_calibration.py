"""
Are the intervals right?
========================

With a Gaussian prior the posterior is known exactly, so a sampler can be examined. Draw many true
images from the prior, measure each, sample the posterior, and count how often the true value of a
pixel lies inside the interval. A calibrated sampler reaches the nominal share; a curve below the
diagonal belongs to intervals that are too narrow.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data

import genprior
from genprior.core.random_streams import Noise

grass = torch.tensor(data.grass()[:16, :16] / 255, dtype=torch.float32)[None, None]
prior = genprior.estimate_prior("texture", grass, margin=0)  # periodic, so that all is exact
truth = genprior.sample(prior, 24, (16, 16), seed=1)

# %%
# The measurements: a blur and noise of 0.05.

operator = genprior.make_operator("deblur", gaussian=1.0, boundary="circular")
y = genprior.degrade(truth, operator, noise_std=0.05)

# %%
# ``gaussian`` draws from the exact posterior; the others are approximations that see the prior
# only through its denoiser. For each, the share of true values inside the central interval:

SAMPLERS = {
    "gaussian (exact)": genprior.make_solver("gaussian"),
    "moment-matched": genprior.make_solver("moment-matched", steps=10),
    "mmps, 10 steps": genprior.make_solver("mmps", steps=10),
    "ddrm": genprior.make_solver("ddrm"),
}
nominal = torch.linspace(0.1, 0.9, 9)
figure, ax = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
ax.plot([0, 1], [0, 1], color="0.7", label="calibrated")
for name, solver in SAMPLERS.items():
    # 19 samples of each image; called directly, a solver runs them all as one batch.
    copies, noise = y.repeat_interleave(19, dim=0), Noise(0, range(19 * len(y)))
    drawn = solver(copies, operator, prior, 0.05, noise).unflatten(0, (len(y), 19))
    rank = (drawn < truth[:, None]).float().mean(dim=1)  # 0.5 is the median
    inside = [((rank - 0.5).abs() <= share / 2).float().mean().item() for share in nominal]
    ax.plot(nominal, inside, marker="o", markersize=3, label=name)
    print(f"{name:18} the 90 % interval holds {100 * inside[-1]:.1f} %")
ax.set(xlabel="nominal share", ylabel="share of true values inside", aspect="equal")
ax.legend(fontsize=8)
plt.show()
