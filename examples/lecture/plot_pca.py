"""
Gaussian model of a data set: mean face, eigenvectors, samples
==============================================================

Mean and covariance of N images, E Lambda E^T, make the linear generator x = mean + E Lambda^(1/2)
z with z ~ N(0, I). The faces are those that scikit-image ships, 25 x 25 pixels.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data

from genprior.priors.pca import PCA

faces = torch.tensor(data.lfw_subset()[:100]).float()[:, None]
shape = torch.Size((1, 1, 25, 25))
prior = PCA.from_images(faces, 60, torch.Generator().manual_seed(0))
mean = prior.mean(shape)[0, 0]

# %%
# The mean, and the mean plus and minus two standard deviations along the first eigenvectors.

figure, axes = plt.subplots(3, 7, figsize=(9, 4.1), layout="constrained")
for k, column in enumerate(axes.T[1:]):
    z = torch.zeros(prior.latent_shape(shape))
    z.flatten()[k] = 1
    for ax, factor in zip(column, (-2, 0, 2), strict=True):
        image = prior.decode(factor * z, shape)[0, 0]
        if factor == 0:  # the eigenvector itself
            image = prior.decode(z, shape)[0, 0] - mean
            ax.imshow(image, cmap="gray")
            ax.set_title(f"eigenvector {k + 1}", fontsize=8)
        else:
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
            ax.set_title(f"mean {factor:+} std", fontsize=8)
axes[1, 0].imshow(mean, cmap="gray", vmin=0, vmax=1)
axes[1, 0].set_title("mean", fontsize=8)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%
# Samples: faces of the set above, drawn ones below. A Gaussian mixes all faces into each.

figure, axes = plt.subplots(2, 8, figsize=(9, 2.5), layout="constrained")
z = torch.zeros(8, *prior.latent_shape(shape)[1:])
z[:, :60] = torch.randn(8, 60, generator=torch.Generator().manual_seed(1))
drawn = prior.decode(z, torch.Size((8, 1, 25, 25)))  # without the white noise of the rest
for column, real, sample in zip(axes.T, faces, drawn, strict=False):
    for ax, image in zip(column, (real, sample), strict=True):
        ax.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        ax.set_axis_off()
plt.show()
