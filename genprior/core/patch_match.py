"""Exemplar-based filling of holes: multi-scale PatchMatch with voting (Wexler, Barnes).

Every patch t that overlaps the hole gets the most similar patch s(t) of the known part,

    s(t) = argmin_s  sum_j w(t + j) |x(t + j) - x(s + j)|^2 / sum_j w(t + j),

and every pixel of the hole the mean of the pixels that these patches propose for it. Both
steps alternate, from a coarse image to the full one. The last vote copies single pixels, so that
the result has the sharpness of the known part.

References:
    PatchMatch: A Randomized Correspondence Algorithm for Structural Image Editing, Barnes et
        al., 2009.
    Space-Time Completion of Video, Wexler et al., 2007.
    Video Inpainting of Complex Scenes, Newson et al., 2014 (first fill from the border inwards;
        the local contrast is compared, too, since a mean of patches prefers smooth ones).

Differs from the authors' code:
    1. All patches are searched at once: propagation takes the state of the neighbours before
        the step, not after it.
    2. Mirrored copies of the image are further sources; a patch is never rotated itself.
    3. The two differences whose local mean is compared besides the colours are taken in a square,
        and are interpolated in the hole.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from genprior.core.pull_push import pull_push

PATCH = 7
# Confidence of a pixel of the hole, by its distance to the known part in pixels (Wexler et al.).
DECAY = 1.3
# Distance above which the confidence does not fall further: it must not underflow.
DEEPEST = 32
# Distance to the known part at the coarsest scale, in pixels, below which no coarser one is made.
COARSEST = 4
# Patches that must be known at a scale, as a multiple of the pixels of a patch.
ENOUGH = 4
# Pairs of a patch and a candidate that are compared at once, to bound the memory.
CHUNK = 2**16
# Largest number of patches over the hole that are kept in memory during a search.
KEPT = 2**17
# Alternations of search and vote: at the full scale, and at the coarser ones.
FINE, COARSE = 2, 8
# Alternations of search and copying at the end.
COPIES = 4
# Weight of the local contrast in the comparison of patches (Newson et al.), and the side of the
# square in which it is measured, in pixels.
CONTRAST, AROUND = 7.0, 7
NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1))


@dataclass(frozen=True)
class Fill:
    """A filled image.

    Arguments:
        image: Shape (C, H, W); the known pixels are those of the input.
        mismatch: Root of the mean squared difference between the known pixels around the hole
            and what the copied patches hold at their places, in image units; infinite if no
            patch is known, so that the hole was filled smoothly.
        down: Differences x[i + 1, j] - x[i, j] of the patches, shape (C, H - 1, W). In one copy
            they are those of `image`. At a seam, where copies of two places meet, both places
            propose a difference, and the larger one is taken; at the border of the hole it is
            that of the copy. Those of two known pixels have no meaning.
        right: Likewise x[i, j + 1] - x[i, j], shape (C, H, W - 1).
    """

    image: Tensor
    mismatch: float
    down: Tensor
    right: Tensor


def fill_from_patches(
    x: Tensor, known: Tensor, generator: torch.Generator, patch: int = PATCH, mirror: bool = False
) -> Fill:
    """Fills the unknown pixels of one image with patches of its known part.

    Arguments:
        x: Image, shape (C, H, W); values of unknown pixels are ignored.
        known: True where a pixel is known in all channels, shape (H, W).
        generator: Random numbers of the search, on the CPU.
        patch: Side of the patches in pixels, odd, >= 3. It is made smaller if no patch of this
            side is known.
        mirror: Whether the mirrored image is a source, too.

    Returns:
        The image and its mismatch. If no patch of 3 x 3 pixels is known, the hole is filled by
        `pull_push`, and with zeros if no pixel is known.

    Raises:
        ValueError: `patch` is even or below 3.
    """
    if patch < 3 or patch % 2 == 0:
        raise ValueError(f"patch must be an odd number of pixels >= 3, got {patch}")
    known = known.bool()
    smooth = pull_push(x[None], known[None, None].to(x))[0]
    while patch > 3 and not _known_patches(known, patch).any():
        patch -= 2
    if known.all() or not _known_patches(known, patch).any():
        mismatch = 0.0 if known.all() else torch.inf
        return Fill(smooth, mismatch, smooth.diff(dim=-2), smooth.diff(dim=-1))
    colours, contrast = len(x), _local_contrast(smooth, known)
    scales = _scales(torch.cat([smooth, CONTRAST * contrast]), known, patch, mirror)
    coarsest = scales[-1]
    state = _from_border_inwards(coarsest, generator)
    for level in reversed(range(len(scales))):
        scale = scales[level]
        if scale is not coarsest:
            state = _refined(state, scales[level + 1], scale, generator)
        for _ in range(COARSE if level else FINE):
            state = scale.search(state, generator)
            state = scale.vote(state)
    finest = scales[0]
    for _ in range(COPIES):  # patches inside one copy are equal to known ones: copies grow
        state = finest.vote(finest.search(state, generator), copy=True)
    image = torch.where(known, x, finest.image_of(state.image)[:colours])
    down, right = (part[:colours] for part in finest.differences(state))
    return Fill(image, finest.mismatch(state, colours), down, right)


@dataclass(frozen=True)
class _State:
    """Current image (N, C), and the source of every patch that overlaps the hole, (T,)."""

    image: Tensor
    source: Tensor


class _Scale:
    """One scale of the pyramid: an image with a border of half a patch, as a list of pixels.

    Arguments:
        image: Shape (C, H, W).
        known: Known pixels, shape (H, W), bool.
        patch: Side of a patch.
        mirror: Whether the mirrored image is a source, too.
    """

    def __init__(self, image: Tensor, known: Tensor, patch: int, mirror: bool) -> None:
        self.known, self.patch, self.radius = known, patch, patch // 2
        self.size = tuple(known.shape)
        border = [self.radius] * 4
        views = [image, image.flip(-1)] if mirror else [image]
        masks = [known, known.flip(-1)] if mirror else [known]
        padded = torch.stack([pad(v[None], border, "replicate")[0] for v in views])
        self.height, self.width = padded.shape[-2:]
        self.pixels = padded.permute(0, 2, 3, 1).flatten(0, 2).contiguous()
        sources = [pad(_known_patches(mask, patch), border) for mask in masks]
        self.is_source = torch.stack(sources).flatten()
        self.sources = self.is_source.nonzero().flatten()
        self.inside = pad(torch.ones_like(known), border).flatten()
        self.hole = pad(~known, border).flatten().nonzero().flatten()
        near = max_pool2d((~known)[None].float(), patch, 1, self.radius)[0] > 0
        self.targets = pad(near, border).flatten().nonzero().flatten()
        self.depth = pad(_depth(known), border).flatten()
        self.confidence = torch.where(
            self.inside, DECAY ** -self.depth.clamp(max=DEEPEST), 0
        )
        steps = torch.arange(-self.radius, self.radius + 1, device=known.device)
        self.offsets = (steps[:, None] * self.width + steps).flatten()
        self.number = torch.full_like(self.inside, -1, dtype=torch.int64)
        self.number[self.targets] = torch.arange(len(self.targets), device=known.device)

    def random_sources(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns `count` uniformly drawn known patches, as pixel numbers of their centres."""
        drawn = torch.rand(count, generator=generator).to(self.sources.device)
        return self.sources[(drawn * len(self.sources)).long().clamp(max=len(self.sources) - 1)]

    def distances(
        self, image: Tensor, weight: Tensor, targets: Tensor, candidates: Tensor
    ) -> Tensor:
        """Returns the weighted mean squared difference of pairs of patches, (T,)."""
        pairs = zip(targets.split(CHUNK), candidates.split(CHUNK), strict=True)
        return torch.cat([
            self._distances(*self._patches(image, weight, some), others) for some, others in pairs
        ])

    def _patches(self, image: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the patches (T, P, C) of an image, and the shares (T, P) of their pixels."""
        here = targets[:, None] + self.offsets
        w = weight[here]
        return image[here], w / w.sum(dim=1, keepdim=True).clamp(min=1e-12)

    def _distances(self, patches: Tensor, share: Tensor, candidates: Tensor) -> Tensor:
        there = self.pixels[candidates[:, None] + self.offsets]
        return (share * (patches - there).square_().sum(dim=-1)).sum(dim=1)

    def search(self, state: _State, generator: torch.Generator, weight: Tensor | None = None,
               rounds: int = 2) -> _State:
        """Improves the sources of all patches by propagation and random search."""
        weight = self.confidence if weight is None else weight
        image, source = state.image, state.source.clone()
        best = self.distances(image, weight, self.targets, source)
        # gathered once for all candidates, unless that takes too much memory
        kept = self._patches(image, weight, self.targets) if len(source) <= KEPT else None
        for _ in range(rounds):
            for candidates in self._candidates(source, generator):
                for t in (candidates != source).nonzero().flatten().split(CHUNK):
                    if kept:
                        patches, share = kept[0][t], kept[1][t]
                    else:
                        patches, share = self._patches(image, weight, self.targets[t])
                    distance = self._distances(patches, share, candidates[t])
                    better = distance < best[t]
                    source[t] = torch.where(better, candidates[t], source[t])
                    best[t] = torch.where(better, distance, best[t])
        return _State(image, source)

    def _candidates(self, source: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        for rows, columns in NEIGHBOURS:
            step = rows * self.width + columns
            neighbour = self.number[self.targets - step]
            moved = source[neighbour.clamp(min=0)] + step
            usable = (neighbour >= 0) & self.is_source[moved]
            yield torch.where(usable, moved, source)
        reach = max(self.size)
        while reach >= 1:
            drawn = torch.rand(2, len(source), generator=generator).to(self.pixels)
            rows, columns = ((2 * drawn - 1) * reach).round().long()
            moved = (source + rows * self.width + columns).clamp(0, len(self.is_source) - 1)
            yield torch.where(
                self.is_source[moved], moved, self.random_sources(len(source), generator)
            )
            reach //= 2

    def vote(self, state: _State, copy: bool = False) -> _State:
        """Returns the state with the pixels of the hole that the patches propose.

        Arguments:
            state: Image and sources.
            copy: Whether a pixel is copied from the source of the patch around it; else it is the
                mean of what all patches over it propose, weighted by likeness and confidence.
        """
        image = state.image.clone()
        if copy:
            image[self.hole] = self.pixels[state.source[self.number[self.hole]]]
            return _State(image, state.source)
        distance = self.distances(image, self.confidence, self.targets, state.source)
        spread = distance.quantile(0.75).clamp(min=1e-8)
        likeness = (-distance / (2 * spread)).exp() * self.confidence[self.targets]
        image[self.hole] = self._proposed(state.source, likeness, self.hole)
        return _State(image, state.source)

    def _proposed(self, source: Tensor, weight: Tensor, at: Tensor) -> Tensor:
        """Returns the weighted mean of the proposals of all patches over the pixels `at`."""
        found = []
        for some in at.split(CHUNK):
            patches = self.number[some[:, None] - self.offsets]
            w = torch.where(patches >= 0, weight[patches.clamp(min=0)], 0).clamp(min=0)
            places = source[patches.clamp(min=0)] + self.offsets
            total = (w[..., None] * self.pixels[places]).sum(dim=1)
            found.append(total / w.sum(dim=1, keepdim=True).clamp(min=1e-30))
        return torch.cat(found)

    def mismatch(self, state: _State, channels: int) -> float:
        """Returns the RMS difference of known pixels and proposals for them around the hole."""
        ring = self.targets[self.depth[self.targets] == 0]
        if not len(ring):
            return 0.0
        equal = self.pixels.new_ones(len(state.source))
        proposed = self._proposed(state.source, equal, ring)
        return (proposed - self.pixels[ring])[:, :channels].square().mean().sqrt().item()

    def differences(self, state: _State) -> tuple[Tensor, Tensor]:
        """Returns the differences of neighbours of the copies, see `Fill`."""
        place = torch.arange(len(self.is_source), device=self.pixels.device)
        place[self.hole] = state.source[self.number[self.hole]]
        copied = torch.zeros_like(self.inside)
        copied[self.hole] = True
        p, found = self.inside.nonzero().flatten(), []
        for step in (self.width, 1):
            q = p + step
            ahead = self._at(place[p] + step) - self._at(place[p])
            behind = self._at(place[q]) - self._at(place[q] - step)
            larger = torch.where(ahead.abs() > behind.abs(), ahead, behind)
            # a known pixel has an unknown neighbour, so it proposes no difference
            one = torch.where(copied[p][:, None], ahead, behind)
            difference = torch.zeros_like(state.image)
            difference[p] = torch.where((copied[p] & copied[q])[:, None], larger, one)
            found.append(self.image_of(difference))
        return found[0][:, :-1], found[1][..., :-1]

    def _at(self, places: Tensor) -> Tensor:
        """Returns the pixels at places, of which those beyond the image are not used."""
        return self.pixels[places.clamp(0, len(self.pixels) - 1)]

    def image_of(self, pixels: Tensor) -> Tensor:
        """Returns the image (C, H, W) of a list of pixels (N, C)."""
        image = pixels.unflatten(0, (self.height, self.width)).permute(2, 0, 1)
        r = self.radius
        return image[:, r : r + self.size[0], r : r + self.size[1]]

    def start(self) -> Tensor:
        """Returns the pixels of the image before the first vote."""
        return self.pixels[: self.height * self.width]


def _known_patches(known: Tensor, patch: int) -> Tensor:
    """Returns whether the patch around each pixel is known and inside the image, (H, W)."""
    unknown = pad((~known).float(), [patch // 2] * 4, value=1.0)
    return max_pool2d(unknown[None], patch, 1)[0] == 0


def _local_contrast(image: Tensor, known: Tensor) -> Tensor:
    """Returns the mean absolute vertical and horizontal differences around each pixel, (2, H, W).

    The means are over known neighbours in a square; where there are none they are interpolated.
    """
    found = []
    for axis in (-2, -1):
        count = image.shape[axis] - 1
        first, second = known.narrow(axis, 0, count), known.narrow(axis, 1, count)
        both = (first & second).to(image)
        border = [0, 1] if axis == -1 else [0, 0, 0, 1]
        strength = pad(image.diff(dim=axis).abs().mean(dim=0) * both, border)
        total, share = (
            avg_pool2d(v[None], AROUND, 1, AROUND // 2) for v in (strength, pad(both, border))
        )
        mean = (total / torch.where(share > 0, share, 1))[None]
        found.append(pull_push(mean, (share > 0)[None].to(image))[0, 0])
    return torch.stack(found)


def _depth(known: Tensor) -> Tensor:
    """Returns the distance of each pixel to the known part, in pixels, float32 (H, W)."""
    from scipy.ndimage import distance_transform_edt  # slow to import

    depth = distance_transform_edt(~known.cpu().numpy())
    return torch.from_numpy(depth).to(known.device, torch.float32)


def _scales(smooth: Tensor, known: Tensor, patch: int, mirror: bool) -> list[_Scale]:
    """Returns the scales, full size first, each of half the size of the one before."""
    scales = [_Scale(smooth, known, patch, mirror)]
    while _depth(known).max() > COARSEST:
        even = [0, known.shape[1] % 2, 0, known.shape[0] % 2]
        hole = pad((~known)[None, None].float(), even, "replicate")
        known = max_pool2d(hole, 2)[0, 0] == 0
        smooth = avg_pool2d(pad(smooth[None], even, "replicate"), 2)[0]
        if _known_patches(known, patch).sum() < ENOUGH * patch**2:
            break
        scales.append(_Scale(smooth, known, patch, mirror))
    return scales


def _from_border_inwards(scale: _Scale, generator: torch.Generator) -> _State:
    """Fills the hole of the coarsest scale layer by layer, from its border inwards."""
    state = _State(scale.start(), scale.random_sources(len(scale.targets), generator))
    deepest = int(scale.depth.max().ceil())
    for layer in range(1, deepest + 1):
        done = scale.inside & (scale.depth < layer)
        weight = torch.where(done, scale.confidence, 1e-6 * scale.confidence)
        state = scale.search(state, generator, weight, rounds=4)
        image = scale.vote(state).image
        shown = scale.inside & (scale.depth < layer + 1)
        state = _State(torch.where(shown[:, None], image, state.image), state.source)
    return state


def _refined(state: _State, coarse: _Scale, fine: _Scale, generator: torch.Generator) -> _State:
    """Returns the state of a finer scale: sources of twice the offset, and a vote with them."""
    row, column = fine.targets // fine.width - fine.radius, fine.targets % fine.width - fine.radius
    above = (row // 2 + coarse.radius) * coarse.width + column // 2 + coarse.radius
    number = coarse.number[above]
    source = state.source[number.clamp(min=0)]
    view, place = source // (coarse.height * coarse.width), source % (coarse.height * coarse.width)
    rows = 2 * (place // coarse.width - coarse.radius) + row % 2
    columns = 2 * (place % coarse.width - coarse.radius) + column % 2
    moved = (view * fine.height + rows + fine.radius) * fine.width + columns + fine.radius
    moved = moved.clamp(0, len(fine.is_source) - 1)
    usable = (number >= 0) & fine.is_source[moved]
    drawn = fine.random_sources(len(moved), generator)
    start = _State(fine.start(), torch.where(usable, moved, drawn))
    weight = usable.to(fine.pixels) * fine.confidence[fine.targets] + 1e-9
    image = start.image.clone()
    image[fine.hole] = fine._proposed(start.source, weight, fine.hole)
    return _State(image, start.source)
