"""
Mode collapse, and the curves of the discriminator
==================================================

Eight Gaussians on a ring are the data. Generator and discriminator have two hidden layers each,
and the losses are those of ``genprior train gan``. The optimiser decides what comes out: all
modes, one mode after the other, or a single point.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

MODES = torch.arange(8) * math.pi / 4
CENTRES = 2 * torch.stack((MODES.cos(), MODES.sin()), dim=1)


def data(count: int, draw: torch.Generator) -> Tensor:
    """Draws points of the eight Gaussians, of standard deviation 0.15."""
    mode = torch.randint(8, (count,), generator=draw)
    return CENTRES[mode] + 0.15 * torch.randn(count, 2, generator=draw)


class Bounded(nn.Module):
    """Maps numbers to (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.tanh()


def network(inputs: int, outputs: int, width: int = 64) -> nn.Sequential:
    """Builds a network of two hidden layers."""
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                         nn.Linear(width, outputs))


def train(
    kind: str, lr: float, momentum: float, loss: str, steps: int, shown: tuple[int, ...]
) -> tuple[list[Tensor], list[tuple[float, float]]]:
    """Trains a GAN; returns samples after the steps `shown`, and the losses of every step."""
    torch.manual_seed(0)
    G, D = nn.Sequential(network(8, 2), Bounded()), network(2, 1)
    draw = torch.Generator().manual_seed(1)
    if kind == "Adam":
        of_G, of_D = (torch.optim.Adam(net.parameters(), lr, (momentum, 0.999)) for net in (G, D))
    else:
        of_G, of_D = (torch.optim.SGD(net.parameters(), lr, momentum) for net in (G, D))
    z_shown, pictures, curves = torch.randn(400, 8, generator=draw), [], []
    for step in range(1, steps + 1):
        x, z = data(64, draw), torch.randn(64, 8, generator=draw)
        critic = softplus(-D(x)).mean() + softplus(D(G(z).detach())).mean()
        of_D.zero_grad()
        critic.backward()
        of_D.step()
        logit = D(G(torch.randn(64, 8, generator=draw)))
        generator = -softplus(logit).mean() if loss == "minimax" else softplus(-logit).mean()
        of_G.zero_grad()
        generator.backward()
        of_G.step()
        curves.append((critic.item(), generator.item()))
        if step in shown:
            with torch.no_grad():
                pictures.append(G(z_shown))
    return pictures, curves


# %%
# Above SGD without momentum, which covers the ring. In the middle SGD with momentum 0.9, whose
# steps are twice as large in the long run: the generator leaves the data, and all 400 latents give
# one point in a corner, the mode collapse of the lecture. Its last layer is saturated there, so
# that no gradient leads back, and the loss of the discriminator is near 0. Below Adam at a high
# rate, which produces one mode at a time. At the fixed point of the game the loss of the
# discriminator is 2 log 2 = 1.39, the dotted line.

STEPS, SHOWN = 450, (50, 150, 300, 450)
RUNS = {
    "SGD, rate 0.1": ("SGD", 0.1, 0.0, "nonsaturating"),
    "SGD, rate 0.02, momentum 0.9": ("SGD", 0.02, 0.9, "nonsaturating"),
    "Adam, rate 0.002": ("Adam", 2e-3, 0.5, "nonsaturating"),
}
figure, axes = plt.subplots(len(RUNS), len(SHOWN) + 1, figsize=(10, 6), layout="constrained")
for row, (name, settings) in zip(axes, RUNS.items(), strict=True):
    pictures, curves = train(*settings, STEPS, SHOWN)
    for ax, x, step in zip(row, pictures, SHOWN, strict=False):
        ax.plot(*CENTRES.T, "o", color="#f28e2b", markersize=11, alpha=0.5)
        ax.plot(*x.T, ".", color="#4e79a7", markersize=3, clip_on=False)
        ax.set(xlim=(-3.1, 3.1), ylim=(-3.1, 3.1), aspect="equal", xticks=[], yticks=[])
        ax.set_title(f"step {step}, spread {x.std(dim=0).norm():.2g}", fontsize=8)
    row[0].set_ylabel(name.replace(", ", ",\n"), fontsize=8)
    for values, label in zip(zip(*curves, strict=True), ("discriminator", "generator"),
                             strict=True):
        row[-1].plot(range(0, STEPS, 10), values[::10], label=label, linewidth=0.8)
    row[-1].axhline(2 * math.log(2), color="black", linestyle=":", linewidth=0.8)
    row[-1].set_xlabel("step", fontsize=8)
axes[0, -1].legend(fontsize=7)
plt.show()
