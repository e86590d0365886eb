"""
WGAN: weight clipping against a gradient penalty
================================================

Critics that are trained to their optimum, as in the first figure of Gulrajani et al. (2017): the
generated points are the real ones plus Gaussian noise, and do not change. With clipped weights the
critic is too simple to see the shape of the data; with the penalty on its gradient it is not.
"""

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn


def eight(count: int, draw: torch.Generator) -> Tensor:
    """Draws points near eight centres on a circle."""
    angle = torch.randint(8, (count,), generator=draw) * math.pi / 4
    return 1.5 * torch.stack((angle.cos(), angle.sin()), 1) + 0.05 * torch.randn(
        count, 2, generator=draw)


def roll(count: int, draw: torch.Generator) -> Tensor:
    """Draws points along a spiral."""
    t = 1.5 * math.pi * (1 + 2 * torch.rand(count, generator=draw))
    return torch.stack((t * t.cos(), t * t.sin()), 1) / 7.5 + 0.03 * torch.randn(
        count, 2, generator=draw)


def train(
    real: Callable[[int, torch.Generator], Tensor], loss: str, steps: int = 400
) -> tuple[nn.Module, list[float]]:
    """Trains a critic D to maximise mean D(x) - mean D(G(z)) with its constraint."""
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    D = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                      nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(D.parameters(), 1e-3, betas=(0.5, 0.9))
    curve = []
    for _ in range(steps):
        x = real(128, draw)
        fake = real(128, draw) + torch.randn(128, 2, generator=draw)
        cost = D(fake).mean() - D(x).mean()
        curve.append(-cost.item())
        if loss == "gradient penalty":
            u = torch.lerp(x, fake, torch.rand(128, 1, generator=draw)).requires_grad_()
            slope = torch.autograd.grad(D(u).sum(), u, create_graph=True)[0]
            cost = cost + 10 * (slope.norm(dim=1) - 1).square().mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if loss == "clipping":
            with torch.no_grad():
                for p in D.parameters():
                    p.clamp_(-0.1, 0.1)
    return D, curve


axis = torch.linspace(-2.4, 2.4, 90)
grid = torch.cartesian_prod(axis, axis)
figure, axes = plt.subplots(2, 3, figsize=(9.2, 6), layout="constrained")
for row, (name, real) in zip(axes, {"8 Gaussians": eight, "spiral": roll}.items(), strict=True):
    for ax, loss in zip(row, ("clipping", "gradient penalty"), strict=False):
        D, curve = train(real, loss)
        with torch.no_grad():
            value = D(grid).reshape(90, 90).T
        points = real(400, torch.Generator().manual_seed(1))
        ax.contour(axis, axis, value, 14, cmap="viridis")
        ax.plot(*points.T, ".", color="darkorange", markersize=2)
        ax.set_title(f"{name}: {loss}", fontsize=9)
        ax.set_aspect("equal")
        row[2].plot(curve, label=loss)
    row[2].set_title("mean D(x) - mean D(G(z)) over the steps", fontsize=9)
    row[2].legend(fontsize=8)
plt.show()
