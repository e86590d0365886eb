"""Pruning of a UNet: another number of channels per level, with the weights of a trained network.

Of a level that becomes narrower the channels with the largest weights stay: a channel counts the
norm of the weights that make it times the norm of those that read it. A level that becomes wider
gets new channels that nothing reads yet, so they change no output. A pruned network needs some
training before it is as good again.

References:
    Pruning Filters for Efficient ConvNets, Li et al., 2017 (channels chosen by the norm of their
        weights).

Differs from the authors' code:
    1. The norm of the weights that read a channel counts besides that of those that make it.
    2. The channels of a residual stream are chosen together, once for all blocks of a level.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# Dimensions of the output and input channels in the weights of a layer; `up` is transposed.
OUTPUT, INPUT = 0, 1


def prune_unet(state: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights of the shapes of a new UNet, made of those of a trained one.

    Arguments:
        state: Weights of the trained UNet, by name.
        new: Weights of a `UNet` with the same number of levels and blocks, and other widths.
            Only their shapes matter. Where other sizes differ too, as the image channels, the
            result does not fit it.
    """
    pruned = dict(state)
    levels = len({name.split(".")[1] for name in state if name.startswith("down.")})
    for level in range(levels + 1):
        blocks = sorted({
            ".".join(name.split(".")[:3]) for name in state
            if name.startswith((f"encoder.{level}.", f"decoder.{level}."))
        })
        makers = [(f"{block}.conv2", OUTPUT) for block in blocks]
        readers = [(f"{block}.conv1", INPUT) for block in blocks]
        if level == 0:
            makers += [("head", OUTPUT)] + [("holes", OUTPUT)] * ("holes.weight" in state)
            readers.append(("tail", INPUT))
        else:
            makers.append((f"down.{level - 1}", OUTPUT))
            readers.append((f"up.{level - 1}", OUTPUT))
        if level < levels:
            makers.append((f"up.{level}", INPUT))
            readers.append((f"down.{level}", INPUT))
        _resize(pruned, new, makers, readers)
        for block in blocks:
            _resize(pruned, new, [(f"{block}.conv1", OUTPUT), (f"{block}.modulation", OUTPUT)],
                    [(f"{block}.conv2", INPUT)])
    return pruned


def _resize(
    state: dict[str, Tensor], new: Mapping[str, Tensor],
    makers: Sequence[tuple[str, int]], readers: Sequence[tuple[str, int]],
) -> None:
    """Changes the number of channels that some layers make and others read.

    Arguments:
        state: Weights by name; replaced.
        new: Weights of the wanted shapes, whose values new channels take.
        makers: Layers, with the dimension of these channels in their weights. A layer with more
            outputs, such as scale and shift, has one group of the channels after the other.
        readers: The same of the layers whose inputs the channels are.
    """
    first, dim = makers[0]
    before, after = (s[f"{first}.weight"].shape[dim] for s in (state, new))
    if before == after:
        return
    scores = [
        sum(_per_channel(state[f"{name}.weight"], dim, before) for name, dim in layers)
        for layers in (makers, readers)
    ]
    kept = (scores[0] * scores[1]).argsort(descending=True)[:after].sort().values
    copied = torch.arange(max(after - before, 0)) % before
    for layers, made in ((makers, True), (readers, False)):
        for name, dim in layers:
            weight = state[f"{name}.weight"]
            groups = weight.unflatten(dim, (-1, before))
            # a new channel sums other channels than the one that it is made from
            extra = groups.roll(1, dims=2 if dim == OUTPUT else 0).index_select(dim + 1, copied)
            parts = (groups.index_select(dim + 1, kept), extra if made else 0 * extra)
            state[f"{name}.weight"] = torch.cat(parts, dim=dim + 1).flatten(dim, dim + 1)
            if made and f"{name}.bias" in state:
                groups = state[f"{name}.bias"].unflatten(0, (-1, before))
                state[f"{name}.bias"] = groups[:, torch.cat((kept, copied))].flatten()


def _per_channel(weight: Tensor, dim: int, channels: int) -> Tensor:
    """Returns the sum of squares of the weights of each channel, shape (channels,)."""
    groups = weight.unflatten(dim, (-1, channels)).movedim(dim + 1, 0)
    return groups.flatten(1).square().sum(dim=1)
