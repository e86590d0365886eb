"""
The two estimators of the ELBO, and posterior collapse
======================================================

Kingma and Welling (2014) estimate the KL divergence between the encoder's law of a latent and
N(0, I) from the latent that was drawn, or in closed form, 1/2 sum(mu^2 + s^2 - 1 - log s^2). In
the shell: ``genprior train vae PHOTOS -o run --time 10m --set divergence=sampled``, or ``exact``.
The data are the faces that scikit-image ships.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data

from genprior.core.random_streams import Noise
from genprior.priors.elbo import divergence
from genprior.priors.vae import VAE

faces = torch.tensor(data.lfw_subset()[:50]).float()[:, None]
LATENT, STEPS = 12, 200


def train(beta: float, kind: str = "exact") -> tuple[VAE, list[torch.Tensor]]:
    """Trains a small VAE; returns it, and the KL divergence of each latent every 10 steps."""
    torch.manual_seed(0)
    vae = VAE(1, LATENT, (128,), size=(25, 25), architecture="dense", std=0.15, beta=beta,
              divergence=kind)
    optimizer, seen = torch.optim.Adam(vae.parameters(), 4e-3), []
    for step in range(STEPS):
        loss = vae.losses(faces, Noise(0, [(step, k) for k in range(len(faces))]))["vae"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            with torch.no_grad():
                mean, log_std = vae.posterior(faces)
                each = [divergence(mean[:, k : k + 1], log_std[:, k : k + 1]).mean()
                        for k in range(LATENT)]
            seen.append(torch.stack(each))
    return vae, seen


# %%
# Both estimators have the same mean: on the left the loss of 50 faces for 60 draws of the noise,
# with the same network. Its spread is that of the reconstructions, nearly the same with both. On
# the right the divergence in trainings with one and with the other.

vae, kl = train(1.0)
figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), layout="constrained")
for kind, colour in (("exact", "#4e79a7"), ("sampled", "#f28e2b")):
    vae._config["divergence"] = kind
    with torch.no_grad():
        drawn = [vae.losses(faces, Noise(1, [(n, k) for k in range(len(faces))]))["vae"].item()
                 for n in range(60)]
    axes[0].hist(drawn, 12, alpha=0.6, color=colour, label=f"{kind} KL")
    total = kl if kind == "exact" else train(1.0, kind)[1]
    axes[1].plot(range(0, STEPS, 10), [float(each.sum()) for each in total], color=colour,
                 label=f"trained with the {kind} KL")
axes[0].set(xlabel="loss, nats per pixel", yticks=[])
axes[1].set(xlabel="step", ylabel="KL, nats per image")
for ax in axes:
    ax.legend(fontsize=7)
plt.show()

# %%
# Posterior collapse. Each curve is the KL divergence of one latent. Where it falls to 0 the
# encoder ignores the image, and the latent is noise that the decoder ignores. The larger the
# weight beta of the divergence is, the fewer latents survive.

figure, axes = plt.subplots(2, 3, figsize=(8, 4.2), layout="constrained", height_ratios=(2, 1))
for column, beta in zip(axes.T, (0.1, 2.0, 20.0), strict=True):
    vae, kl = train(beta)
    curves = torch.stack(kl)
    column[0].plot(range(0, STEPS, 10), curves, linewidth=0.9)
    alive = int((curves[-1] > 0.05).sum())
    column[0].set_title(f"beta = {beta:g}: {alive} of {LATENT} latents", fontsize=9)
    column[0].set(xlabel="step", yscale="symlog", ylim=(0, 12))
    with torch.no_grad():
        z = torch.randn(6, LATENT, generator=torch.Generator().manual_seed(0))
        x = vae.decode(z, torch.Size((6, 1, 25, 25)))
    sheet = x.reshape(2, 3, 25, 25).transpose(1, 2).reshape(50, 75)
    column[1].imshow(sheet, cmap="gray", vmin=0, vmax=1)
    column[1].set_axis_off()
axes[0, 0].set_ylabel("KL of a latent, nats", fontsize=8)
plt.show()
