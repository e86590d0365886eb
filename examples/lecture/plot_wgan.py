"""
Critics of a Wasserstein GAN: weight clipping and gradient penalty
==================================================================

A critic of the W1 distance should have slope 1 between generated and real points. Clipped weights
(Arjovsky et al. 2017) bound the slope, and the critic becomes a simple function. A penalty on the
slope (Gulrajani et al. 2017) lets it follow the data. As in their figure 1, the generated points
are fixed: real ones with Gaussian noise. The weight of the penalty is 0.1, as in their program for
points, and the slope stays above 1; with the 10 of images the slope of the first steps cannot turn
round.
"""

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

CLIP, PENALTY = 0.1, 0.1


def ring(count: int, draw: torch.Generator) -> Tensor:
    """Draws points of eight narrow Gaussians on a circle."""
    angle = torch.randint(8, (count,), generator=draw) * math.pi / 4
    return 1.5 * torch.stack((angle.cos(), angle.sin()), 1) + 0.03 * torch.randn(
        count, 2, generator=draw)


def roll(count: int, draw: torch.Generator) -> Tensor:
    """Draws points of a spiral."""
    t = 1.5 * math.pi * (1 + 2 * torch.rand(count, generator=draw))
    return 0.13 * torch.stack((t * t.cos(), t * t.sin()), 1) + 0.03 * torch.randn(
        count, 2, generator=draw)


def critic(data: Callable, kind: str, steps: int = 500) -> tuple[nn.Module, list[float]]:
    """Trains a critic; returns it, and its estimate of the distance at every step."""
    torch.manual_seed(0)
    D = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                      nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(D.parameters(), 2e-3, (0.0, 0.9))
    draw, distances = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        real = data(128, draw)
        fake = real + 0.7 * torch.randn(128, 2, generator=draw)  # paired: the difference is calm
        distance = (D(real) - D(fake)).mean()
        loss = -distance
        if kind == "gradient penalty":
            u = torch.lerp(real, fake, torch.rand(128, 1, generator=draw)).requires_grad_()
            slope = torch.autograd.grad(D(u).sum(), u, create_graph=True)[0].norm(dim=1)
            loss = loss + PENALTY * (slope - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if kind == "weight clipping":
            with torch.no_grad():
                for p in D.parameters():
                    p.clamp_(-CLIP, CLIP)
        distances.append(distance.item())
    return D, distances


# %%
# Level sets of the critics, and the real points. The title gives the mean slope between real and
# generated points. The shell trains such critics by ``genprior train gan PHOTOS -o run --time 10m
# --set loss=wgan-clip``, or ``loss=wgan-gp``.

axis = torch.linspace(-2.5, 2.5, 80)
grid = torch.cartesian_prod(axis, axis)
figure, axes = plt.subplots(2, 3, figsize=(9, 5.6), layout="constrained")
for row, (name, data) in zip(axes, {"eight Gaussians": ring, "spiral": roll}.items(), strict=True):
    for ax, kind in zip(row, ("weight clipping", "gradient penalty"), strict=False):
        D, distances = critic(data, kind)
        draw = torch.Generator().manual_seed(5)
        real = data(400, draw)
        fake = real + 0.7 * torch.randn(400, 2, generator=draw)
        u = torch.lerp(real, fake, torch.rand(400, 1, generator=draw)).requires_grad_()
        slope = torch.autograd.grad(D(u).sum(), u)[0].norm(dim=1).mean().item()
        with torch.no_grad():
            values = D(grid).reshape(80, 80).T
        ax.contour(axis, axis, values, 16, linewidths=0.8)
        ax.plot(*real.T, ".", color="#e15759", markersize=2)
        ax.set(aspect="equal", xticks=[], yticks=[])
        ax.set_title(f"{kind}, slope {slope:.2g}", fontsize=9)
        size = sum(distances[-100:]) / 100
        row[2].plot([d / size for d in distances], label=kind, linewidth=0.8)
    row[0].set_ylabel(name, fontsize=9)
    row[2].set_title("distance, in units of the last ones", fontsize=8)
    row[2].set(xlabel="step", ylim=(-0.5, 1.5))
    row[2].legend(fontsize=7)
plt.show()
