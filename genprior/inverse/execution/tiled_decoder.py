"""A decoder that makes a large image tile by tile, from latents that stay whole; a density too.

    G(z) = sum_k w_k G(z on tile k),   sum_k w_k = 1

The solver's state and the operator are whole, as they are for a denoiser in tiles. Gradients
reach all latents, but the activations of a tile are computed again when they are needed, so that
those of one tile are there at a time. An encoder's latents are taken from the tile in whose
middle they are.
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
    """A decoder in overlapping tiles, which are blended as those of a denoiser.

    Arguments:
        prior: The decoder; it has `maps` and a `receptive_radius`.
        side: Largest height and width of a tile in pixels; several images are in a tile at once
            if they are smaller.
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
    """A decoder of layers in tiles; `rest` is in tiles too, a layer alone is not."""

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
    """A decoder with an encoder, both in tiles."""

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
        parts = _few(x, x.shape, self.side)
        return torch.cat([_encode(self.prior, self.side, part) for part in parts])

    def reconstruct(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        def run(x: Tensor) -> Tensor:
            return blended(
                lambda tile: _forgetful(self.prior.reconstruct, x[(..., *tile)], temperature),
                torch.zeros_like(x), self.side, self.stride,
            )

        return torch.cat([run(part) for part in _few(x, x.shape, self.side)])


class TiledDensity(nn.Module, Density):
    """A density whose gradient is blended from those of tiles.

    The log-density of a tile counts in proportion to the pixels that are its own. It is not the
    log-density of the whole image, whose latents are one law; nor is the gradient quite its
    gradient, but within a tile, farther from its rim than the prior reaches, it is that of the
    whole image.

    Arguments:
        prior: The density; it has a `receptive_radius`.
        side: Largest height and width of a tile in pixels.
    """

    def __init__(self, prior: Density, side: int) -> None:
        super().__init__()
        self.prior, self.side = prior, side
        self.receptive_radius, self.stride = prior.receptive_radius, prior.stride

    def log_prob(self, x: Tensor) -> Tensor:
        slopes = torch.is_grad_enabled() and x.requires_grad

        def window(tile: Tile) -> Tensor:
            with torch.set_grad_enabled(slopes):
                part = x[(..., *tile)].detach().requires_grad_(slopes)
                value = self.prior.log_prob(part)
            slope = torch.autograd.grad(value.sum(), part)[0] if slopes else part
            share = value.detach() / part.shape[-2:].numel()
            return torch.cat((slope, share.reshape(-1, 1, 1, 1).expand_as(part[:, :1])), dim=1)

        whole = x.new_zeros(len(x), x.shape[1] + 1, *x.shape[2:])
        found = blended(window, whole, self.side, self.stride)
        value, slope = found[:, -1].flatten(1).sum(dim=1), found[:, :-1]
        return value + (slope * (x - x.detach())).flatten(1).sum(dim=1) if slopes else value


TILED = {
    Decoder: TiledDecoder,
    Layered: TiledLayered,
    Variational: TiledVariational,
    Density: TiledDensity,
}


def activation_bytes(prior: Decoder | Density, channels: int, like: Tensor) -> float:
    """Bytes that a prior keeps for its gradient, per pixel of an image.

    Arguments:
        prior: A decoder that has `maps`, or a density, of images of any size.
        channels: Channels of the image.
        like: A tensor of the type and on the device of the latents.
    """
    shape = torch.Size((1, channels, SMALLEST, SMALLEST))
    own: set[int] = set()
    if isinstance(prior, nn.Module):
        own = {t.data_ptr() for t in (*prior.parameters(), *prior.buffers())}
    sizes: dict[int, int] = {}

    def note(t: Tensor) -> torch.UntypedStorage:
        # held by its memory: the tensor would hold the graph that holds it, for ever
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return storage

    with torch.enable_grad(), saved_tensors_hooks(note, lambda storage: storage):
        if isinstance(prior, Decoder):
            z = like.new_zeros(prior.latent_shape(shape)).requires_grad_()
            result = prior.decode(z, shape)
        else:
            result = prior.log_prob(like.new_full(shape, 0.5).requires_grad_())
    total = sum(sizes.values())
    del result  # until here, so that none of these was freed
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
    """Images of latents, or of activations, that consist of `maps`."""

    def run(z: Tensor) -> Tensor:
        whole = _split(z, maps, prior.stride, image_shape)

        def window(tile: Tile) -> Tensor:
            shape = torch.Size((len(z), image_shape[1], *(s.stop - s.start for s in tile)))
            parts = [
                m[(..., *_sites(tile, f, prior.stride))]
                for m, (_, f) in zip(whole, maps, strict=True)
            ]
            # a map alone may be activations, whose shape no `latent_shape` tells
            local = torch.cat([m.flatten(1) for m in parts], dim=1) if parts[1:] else parts[0]
            return _forgetful(decode, local, shape)

        x = z.new_zeros(len(z), *image_shape[1:])
        return blended(window, x, side, prior.stride)

    return torch.cat([run(part) for part in _few(z, image_shape, side)])


def _few(z: Tensor, image_shape: torch.Size, side: int) -> tuple[Tensor, ...]:
    """Latents of as many images as have no more pixels in a tile than one large image has."""
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
    """Tiles of an axis, and the part of each that is nearer to its middle than to others'."""
    cuts = [(start + overlap // 2) // stride * stride for start, _ in tiles[1:]]
    cores = zip([0, *cuts], [*cuts, tiles[-1][1]], strict=True)
    return [(slice(*tile), slice(*core)) for tile, core in zip(tiles, cores, strict=True)]


def _split(z: Tensor, maps: Maps, stride: int, image_shape: torch.Size) -> list[Tensor]:
    """The maps that latents consist of, views of them."""
    height, width = (_extended(n, stride) for n in image_shape[-2:])
    shapes = [torch.Size((channels, height // f, width // f)) for channels, f in maps]
    parts = z.flatten(1).split([shape.numel() for shape in shapes], dim=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def _sites(tile: Tile, f: int, stride: int) -> Tile:
    """Rows and columns of the sites, f pixels wide, that a tile is made from."""
    return tuple(slice(s.start // f, _extended(s.stop, stride) // f) for s in tile)


def _extended(length: int, stride: int) -> int:
    return -(-length // stride) * stride


def _forgetful(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """The value of a function whose activations are not kept for gradients."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
