"""Tiled evaluation of decoders, encoders and densities on large images.

    G(z) = sum_k w_k G(z on tile k),   sum_k w_k = 1

The latents, the solver's state and the operator cover the whole image. Gradients reach all
latents. Gradient checkpointing keeps the activations of only one tile at a time in memory. Each
latent of an encoder is taken from the tile whose centre is nearest.
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from genprior.inverse.execution.tiled_denoiser import SMALLEST, Tile, blended, shared, spans
from genprior.priors.base import Decoder, Density, Layered, Variational

Maps = Sequence[tuple[int, int]]


class TiledDecoder(nn.Module, Decoder):
    """A decoder that is evaluated in overlapping tiles, blended as those of `Tiled`.

    Arguments:
        prior: The decoder; it has `latent_maps` and a `receptive_radius`.
        side: Largest height and width of a tile in pixels; smaller images are decoded several
            at once.
    """

    def __init__(self, prior: Decoder, side: int) -> None:
        super().__init__()
        self.prior, self.side = prior, side
        self.latent_maps, self.receptive_radius, self.stride = (
            prior.latent_maps,
            prior.receptive_radius,
            prior.stride,
        )

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return self.prior.latent_shape(image_shape)

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        return _decode(self.prior, self.side, z, image_shape)


class TiledLayered(nn.Module, Layered):
    """A layered decoder in tiles; `decode` and `rest` are tiled, single layers are not."""

    def __init__(self, prior: Layered, side: int) -> None:
        super().__init__()
        self.prior, self.side = prior, side
        self.latent_maps, self.receptive_radius, self.stride = (
            prior.latent_maps,
            prior.receptive_radius,
            prior.stride,
        )

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return self.prior.latent_shape(image_shape)

    def layers(self, image_shape: torch.Size) -> Sequence[Callable[[Tensor], Tensor]]:
        return self.prior.layers(image_shape)

    def rest(self, h: Tensor, first: int, image_shape: torch.Size) -> Tensor:
        if first == 0:
            return _decode(self.prior, self.side, h, image_shape)
        maps = [(h.shape[1], _extended(image_shape[2], self.stride) // h.shape[2])]

        def rest(h: Tensor, shape: torch.Size) -> Tensor:
            return self.prior.rest(h, first, shape)

        return _in_tiles(rest, h, maps, self.prior, self.side, image_shape)


class TiledVariational(nn.Module, Variational):
    """A variational autoencoder with encoder and decoder in tiles."""

    def __init__(self, prior: Variational, side: int) -> None:
        super().__init__()
        self.prior, self.side = prior, side
        self.latent_maps, self.receptive_radius, self.stride = (
            prior.latent_maps,
            prior.receptive_radius,
            prior.stride,
        )

    @property
    def decoder_std(self) -> Tensor:
        return self.prior.decoder_std

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return self.prior.latent_shape(image_shape)

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        return _decode(self.prior, self.side, z, image_shape)

    def encode(self, x: Tensor) -> Tensor:
        parts = _sub_batches(x, x.shape, self.side)
        return torch.cat([_encode(self.prior, self.side, part) for part in parts])

    def reconstruct(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        def run(x: Tensor) -> Tensor:
            return blended(
                lambda tile: _checkpointed(self.prior.reconstruct, x[(..., *tile)], temperature),
                torch.zeros_like(x), self.side, self.stride,
            )

        return torch.cat([run(part) for part in _sub_batches(x, x.shape, self.side)])


class TiledDensity(nn.Module, Density):
    """A density whose gradient is blended from the gradients of tiles.

    The log-density of a tile is weighted by the share of pixels that the tile contributes. The
    sum is not exactly the log-density of the whole image, whose latents have one joint prior, nor
    is the gradient exactly that of the whole image. It is exact inside a tile, farther from the
    edge than the receptive radius.

    Arguments:
        prior: The density; it has a `receptive_radius`.
        side: Largest height and width of a tile in pixels.
    """

    def __init__(self, prior: Density, side: int) -> None:
        super().__init__()
        self.prior, self.side = prior, side
        self.receptive_radius, self.stride = prior.receptive_radius, prior.stride
        self.map_weight, self.map_step_size = prior.map_weight, prior.map_step_size

    def log_prob(self, x: Tensor) -> Tensor:
        needs_gradient = torch.is_grad_enabled() and x.requires_grad

        def window(tile: Tile) -> Tensor:
            with torch.set_grad_enabled(needs_gradient):
                part = x[(..., *tile)].detach().requires_grad_(needs_gradient)
                value = self.prior.log_prob(part)
            gradient = torch.autograd.grad(value.sum(), part)[0] if needs_gradient else part
            share = value.detach() / part.shape[-2:].numel()
            return torch.cat((gradient, share.reshape(-1, 1, 1, 1).expand_as(part[:, :1])), dim=1)

        whole = x.new_zeros(len(x), x.shape[1] + 1, *x.shape[2:])
        found = blended(window, whole, self.side, self.stride)
        value, gradient = found[:, -1].flatten(1).sum(dim=1), found[:, :-1]
        return (
            value + (gradient * (x - x.detach())).flatten(1).sum(dim=1)
            if needs_gradient
            else value
        )


TILED = {
    Decoder: TiledDecoder,
    Layered: TiledLayered,
    Variational: TiledVariational,
    Density: TiledDensity,
}


def activation_bytes(prior: Decoder | Density, channels: int, like: Tensor) -> float:
    """Returns the bytes of activations that a prior stores for gradients, per image pixel.

    Arguments:
        prior: A decoder with `latent_maps`, or a density, for images of any size.
        channels: Channels of the image.
        like: A tensor with the type and device of the latents.
    """
    shape = torch.Size((1, channels, SMALLEST, SMALLEST))
    parameters: set[int] = set()
    if isinstance(prior, nn.Module):
        parameters = {t.data_ptr() for t in (*prior.parameters(), *prior.buffers())}
    sizes: dict[int, int] = {}

    def record(t: Tensor) -> torch.UntypedStorage:
        # keep the storage: keeping the tensor would be a reference cycle with its graph
        storage = t.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return storage

    with torch.enable_grad(), saved_tensors_hooks(record, lambda storage: storage):
        if isinstance(prior, Decoder):
            z = like.new_zeros(prior.latent_shape(shape)).requires_grad_()
            result = prior.decode(z, shape)
        else:
            result = prior.log_prob(like.new_full(shape, 0.5).requires_grad_())
    total = sum(sizes.values())
    del result  # only here, so that no storage was freed before
    return total / SMALLEST**2


def _decode(prior: Decoder, side: int, z: Tensor, image_shape: torch.Size) -> Tensor:
    def decode(z: Tensor, shape: torch.Size) -> Tensor:
        return prior.decode(z.reshape(prior.latent_shape(shape)), shape)

    return _in_tiles(decode, z, prior.latent_maps, prior, side, image_shape)


def _in_tiles(
    decode: Callable[[Tensor, torch.Size], Tensor],
    z: Tensor,
    maps: Maps,
    prior: Decoder,
    side: int,
    image_shape: torch.Size,
) -> Tensor:
    """Decodes latents, or activations of the same layout, in tiles."""

    def run(z: Tensor) -> Tensor:
        whole = _split(z, maps, prior.stride, image_shape)

        def window(tile: Tile) -> Tensor:
            shape = torch.Size((len(z), image_shape[1], *(s.stop - s.start for s in tile)))
            parts = [
                m[(..., *_sites(tile, f, prior.stride))]
                for m, (_, f) in zip(whole, maps, strict=True)
            ]
            # a single map may be activations, whose shape is not given by `latent_shape`
            local = torch.cat([m.flatten(1) for m in parts], dim=1) if parts[1:] else parts[0]
            return _checkpointed(decode, local, shape)

        x = z.new_zeros(len(z), *image_shape[1:])
        return blended(window, x, side, prior.stride)

    return torch.cat([run(part) for part in _sub_batches(z, image_shape, side)])


def _sub_batches(z: Tensor, image_shape: torch.Size, side: int) -> tuple[Tensor, ...]:
    """Splits a batch so that each part has at most the pixels of one full tile."""
    height, width = image_shape[-2:]
    return z.split(max(1, side**2 // (min(height, side) * min(width, side))))


def _encode(prior: Variational, side: int, x: Tensor) -> Tensor:
    stride, overlap = prior.stride, shared(side)
    z = x.new_zeros(prior.latent_shape(x.shape))
    whole = _split(z, prior.latent_maps, stride, x.shape)
    axes = [_cores(spans(n, side, overlap, stride), overlap, stride) for n in x.shape[-2:]]
    for (rows, inner_rows), (columns, inner_columns) in product(*axes):
        tile = x[..., rows, columns]
        part = _split(prior.encode(tile), prior.latent_maps, stride, tile.shape)
        for to, source, (_, f) in zip(whole, part, prior.latent_maps, strict=True):
            inside = _sites((inner_rows, inner_columns), f, stride)
            start = (rows.start // f, columns.start // f)
            there = (slice(s.start - a, s.stop - a) for s, a in zip(inside, start, strict=True))
            to[(..., *inside)] = source[(..., *there)]
    return z


def _cores(
    tiles: list[tuple[int, int]], overlap: int, stride: int
) -> list[tuple[slice, slice]]:
    """Returns the tiles of an axis, each with the part that is nearest to its own centre."""
    cuts = [(start + overlap // 2) // stride * stride for start, _ in tiles[1:]]
    cores = zip([0, *cuts], [*cuts, tiles[-1][1]], strict=True)
    return [(slice(*tile), slice(*core)) for tile, core in zip(tiles, cores, strict=True)]


def _split(z: Tensor, maps: Maps, stride: int, image_shape: torch.Size) -> list[Tensor]:
    """Returns the maps that latents consist of, as views."""
    height, width = (_extended(n, stride) for n in image_shape[-2:])
    shapes = [torch.Size((channels, height // f, width // f)) for channels, f in maps]
    parts = z.flatten(1).split([shape.numel() for shape in shapes], dim=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def _sites(tile: Tile, f: int, stride: int) -> Tile:
    """Returns the rows and columns of the sites, f pixels wide, that determine a tile."""
    return tuple(slice(s.start // f, _extended(s.stop, stride) // f) for s in tile)


def _extended(length: int, stride: int) -> int:
    return -(-length // stride) * stride


def _checkpointed(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """Evaluates a function with gradient checkpointing if gradients are enabled."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
