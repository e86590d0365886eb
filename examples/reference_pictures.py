"""Pictures of every operator, prior, solver and baseline, for their pages in the documentation.

    python examples/reference_pictures.py operators priors solvers baselines nonlinear
    python examples/reference_pictures.py solvers/csgm priors/vae

It writes docs/pictures/KIND/NAME.jpg, of all names of a kind or of those given. A page has a task
that the part is made for in the upper row, and one where it fails in the lower row. Images are
digits drawn from the priors that ship, and photos of scikit-image. Few steps are taken; the
settings are below.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

import genprior
from genprior.api.factory import make_baseline, motion_blur
from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver
from genprior.operators.base import Operator
from genprior.operators.masks import random_keep
from genprior.priors import base
from genprior.priors.pca import PCA
from genprior.registry import BASELINES, OPERATORS, PRIORS, SOLVERS, lookup

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
HEIGHT, GAP = 96, 4
PRIOR_OF = {base.Denoiser: "ddpm:digits", base.Variational: "vae:digits",
            base.Decoder: "gan:digits", base.Layered: "gan:digits"}
# Solvers that need a network, or a prior that inpaints.
ON_DIGITS = ("posterior-mean", "iagan", "ilo", "jpmap", "pnp-hvae")
# Solvers of latent diffusion, of which no prior ships.
ON_LATENTS = ("psld", "resample", "latent-daps")
# Parts of which no weights ship: examples/lecture.py drew these with weights of recipes.md.
FROM_LECTURE = {"hvae": "levels", "pix2pix": "pix2pix", "amortized": "pix2pix"}
# Fewer steps than the defaults of the slow ones.
SETTINGS = {
    "dps": {"steps": 300}, "smc": {"steps": 10, "particles": 4}, "csgm": {"steps": 60},
    "ilo": {"steps": 20}, "iagan": {"steps": 12}, "tmpd": {"steps": 33}, "jfps": {"steps": 33},
    "daps": {"steps": 40}, "pnp-dm": {"steps": 20}, "red-diff": {"steps": 50},
    "langevin": {"steps": 120}, "image-langevin": {"steps": 120}, "glowip": {"steps": 40},
    "resample": {"steps": 60},
}
SIGMA = 0.05


def save(kind: str, name: str, rows: list[list[Tensor]]) -> None:
    """Writes rows of images (1, C, H, W) as one JPEG; small images are enlarged."""
    strips = []
    for row in rows:
        cells = []
        for image in row:
            image = image.clamp(0, 1).expand(-1, 3, -1, -1)
            factor = max(1, round(HEIGHT / image.shape[-2]))
            cells.append(pad(interpolate(image, scale_factor=factor), (0, GAP, 0, GAP), value=1.0))
        height = max(cell.shape[-2] for cell in cells)
        strips.append(torch.cat(
            [pad(cell, (0, 0, 0, height - cell.shape[-2]), value=1.0) for cell in cells], dim=-1))
    width = max(strip.shape[-1] for strip in strips)
    sheet = torch.cat([pad(s, (0, width - s.shape[-1]), value=1.0) for s in strips], dim=-2)
    path = PICTURES / kind / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = sheet[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    Image.fromarray(pixels).save(path, quality=85)
    print(path.name, flush=True)


def photo(name: str, top: int, left: int, side: int = 48) -> Tensor:
    """Returns a crop of an image of scikit-image, (1, C, side, side)."""
    crop = np.atleast_3d(getattr(data, name)())[top : top + side, left : left + side, :3]
    return torch.from_numpy(crop.copy()).permute(2, 0, 1)[None] / 255


def faces() -> Tensor:
    """Returns the faces of scikit-image, (100, 1, 25, 25)."""
    return torch.tensor(data.lfw_subset()[:100]).float()[:, None]


def half_hole(x: Tensor) -> Operator:
    """Returns the operator that deletes the right half of an image."""
    keep = torch.ones(1, 1, *x.shape[2:], dtype=torch.bool)
    keep[..., x.shape[3] // 2 :] = False
    return genprior.make_operator("inpaint", keep=keep)


def answers(
    y: Tensor, operator: Operator, prior: object, solver: Solver, noise: float
) -> list[Tensor]:
    """Returns one restoration, or two samples of a stochastic solver."""
    if not solver.stochastic:
        return [genprior.restore(y, operator, prior, solver, noise).image]
    drawn = genprior.restore(y, operator, prior, solver, noise, samples=2, antithetic=False)
    return list(drawn.samples[0].split(1))


def draw_solvers(names: Iterable[str] = SOLVERS.own) -> None:
    """Draws what each solver makes of a blurred image, and of one with a hole.

    Where the solver takes a Gaussian texture as its prior, the exact posterior is drawn beside it.
    """
    for name in names:
        if name in ON_DIGITS:
            _draw_on_digit(name)
        elif name in ON_LATENTS:
            _draw_on_face(name)
        elif name in FROM_LECTURE:
            _copy_of_lecture("solvers", name)
        elif name == "dithered-mean":
            _draw_on_jpeg(name)
        elif name in ("gaussian", "patchnr"):
            _draw_on_photo(name)
        else:
            _draw_on_texture(name)


def _draw_on_texture(name: str) -> None:
    """Draws reference, measurement, answers, and std or mean beside the exact ones."""
    grass = photo("grass", 60, 60, 32)
    prior = genprior.estimate_prior("texture", grass, margin=0)
    x = genprior.sample(prior, 1, (32, 32), seed=1)
    hole = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    hole[..., 10:22, 10:22] = False
    sheet = []
    for operator in (
        genprior.make_operator("deblur", gaussian=1.6, boundary="circular"),
        genprior.make_operator("inpaint", keep=hole),
    ):
        y = genprior.degrade(x, operator, SIGMA)
        solver = genprior.make_solver(name, **SETTINGS.get(name, {}))
        exact = genprior.restore(y, operator, prior, "gaussian", SIGMA, samples=40)
        row = [x, y]
        if solver.stochastic:  # all in one batch, which restore does on a GPU only
            drawn = solver(y.expand(16, -1, -1, -1), operator, prior, SIGMA, Noise(0, range(16)))
            white = 1.5 * exact.std.max()
            std = drawn.std(dim=0, keepdim=True)
            row += [*drawn[:2].split(1), std / white, exact.std / white]
        else:
            row += [genprior.restore(y, operator, prior, solver, SIGMA).image, exact.mean]
        sheet.append(row)
    save("solvers", name, sheet)


def _draw_on_digit(name: str) -> None:
    """Draws a digit, its blur or noise, and the answers; below with its right half missing."""
    x = genprior.sample("ddpm:digits", 1, (28, 28), steps=30, seed=3)
    needs = lookup(SOLVERS, name, "solver").needs
    solver = genprior.make_solver(name, **SETTINGS.get(name, {}))
    first = genprior.make_operator("denoise") if name == "posterior-mean" else (
        genprior.make_operator("deblur", gaussian=1.6, boundary="reflect"))
    sheet = []
    for operator, noise in ((first, 4 * SIGMA if name == "posterior-mean" else SIGMA),
                            (half_hole(x), SIGMA)):
        y = genprior.degrade(x, operator, noise)
        sheet.append([x, y, *answers(y, operator, PRIOR_OF[needs], solver, noise)])
    save("solvers", name, sheet)


class FaceLatents(nn.Module, base.LatentDenoiser):
    """Principal components of faces as the latents of latent diffusion; their law is N(0, I)."""

    def __init__(self, pca: PCA) -> None:
        super().__init__()
        self.pca, self.scale = pca, nn.Parameter(pca.variances.sqrt())

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return image_shape[0], len(self.scale), 1, 1

    def encode(self, x: Tensor) -> Tensor:
        z = (x - self.pca.mean_image).flatten(1) @ self.pca.components.T / self.scale
        return z[..., None, None]

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        x = (z.flatten(1) * self.scale) @ self.pca.components
        return x.reshape(image_shape) + self.pca.mean_image

    def denoise_latents(self, z: Tensor, s: float | Tensor) -> Tensor:
        return z / (1 + per_image(s, z) ** 2)


def _draw_on_face(name: str) -> None:
    """Draws a face, its measurement, two samples and the exact posterior mean."""
    pca = PCA.from_images(faces(), 40, torch.Generator().manual_seed(0))
    x, sheet = faces()[:1], []
    for operator in (
        genprior.make_operator("deblur", gaussian=1.6, boundary="reflect"), half_hole(x),
    ):
        y = genprior.degrade(x, operator, SIGMA)
        exact = genprior.make_solver("gaussian", mode="mean")
        solver = genprior.make_solver(name, **SETTINGS.get(name, {}))
        drawn = answers(y, operator, FaceLatents(pca), solver, SIGMA)
        sheet.append([x, y, *drawn, genprior.restore(y, operator, pca, exact, SIGMA).image])
    save("solvers", name, sheet)


def _draw_on_photo(name: str) -> None:
    """Draws a texture, and an image with edges, with half of the pixels missing."""
    from genprior.priors.gmm import GMM

    sheet = []
    for image in (photo("grass", 60, 60), photo("brick", 40, 10)):
        if name == "gaussian":
            prior: object = genprior.estimate_prior("texture", image)
        else:
            patches = image.unfold(2, 6, 1).unfold(3, 6, 1).reshape(-1, 1, 6, 6)
            prior = GMM.from_images(patches, 1, torch.Generator().manual_seed(0))
        keep = random_keep(image.shape, missing=0.5)
        operator = genprior.make_operator("inpaint", keep=keep)
        y = genprior.degrade(image, operator, SIGMA)
        sheet.append([image, y, *answers(y, operator, prior, genprior.make_solver(name), SIGMA)])
    save("solvers", name, sheet)


def _draw_on_jpeg(name: str) -> None:
    """Draws a photo and a fine texture, the same as JPEG of quality 10, and the answers."""
    sheet, jpeg = [], genprior.make_operator("jpeg", quality=10)
    for image in (photo("chelsea", 90, 120, 96), photo("grass", 60, 60, 96)):
        y = genprior.degrade(image, jpeg)
        sheet.append([image, y, genprior.restore(y, jpeg, "ddpm", name).image])
    save("solvers", name, sheet)


def draw_operators(names: Iterable[str] = OPERATORS.own) -> None:
    """Draws an image, its measurement, and the pseudo-inverse of the measurement with noise."""
    import deepinv

    x = photo("chelsea", 90, 120, 96)
    keep = random_keep(x.shape, missing=0.5)
    made: dict[str, Callable[[], object]] = {
        "inpaint": lambda: genprior.make_operator("inpaint", keep=keep),
        "deblur": lambda: genprior.make_operator("deblur", gaussian=1.6, boundary="reflect"),
        "superres": lambda: genprior.make_operator("superres", factor=4),
        "denoise": lambda: genprior.make_operator("denoise"),
        "colorize": lambda: genprior.make_operator("colorize"),
        "demosaic": lambda: genprior.make_operator("demosaic"),
        "superres-kernel": lambda: genprior.make_operator(
            "superres-kernel", factor=2, kernel=motion_blur((7, 45))),
        "compressed-sensing": lambda: genprior.make_operator("compressed-sensing", ratio=0.5),
        "external": lambda: deepinv.physics.Decolorize(),
        "hdr": lambda: genprior.make_operator("hdr"),
        "gamma": lambda: genprior.make_operator("gamma"),
        "quantise": lambda: genprior.make_operator("quantise"),
        "phase": lambda: genprior.make_operator("phase"),
        "coded-diffraction": lambda: genprior.make_operator("coded-diffraction"),
        "nonlinear": lambda: genprior.make_operator(
            "nonlinear", A=_squares, image_shape=tuple(x.shape[1:])),
    }
    for name in names:
        if name == "jpeg":  # not linear: the decoded image is what there is without a prior
            coded = [genprior.degrade(x, genprior.make_operator("jpeg", quality=quality))
                     for quality in (40, 10)]
            save("operators", name, [[x, *coded]])
            continue
        operator = made[name]()
        noise = {"denoise": 0.1, "quantise": 0.0}.get(name, 0.02)
        y = genprior.degrade(x, operator, noise)
        back = operator.A_dagger(y) if name == "external" else operator.pinv(y)
        shown = y
        if name in ("phase", "coded-diffraction"):
            shown = (1 + 10 * y.clamp(min=0)).log()[:, :3]
            shown = shown / shown.max()
        save("operators", name, [[x, shown, back]])


def draw_nonlinear(names: Iterable[str] = ("hdr", "phase", "pigdm")) -> None:
    """Draws restorations from measurements that are not linear."""
    draw = {"hdr": _draw_over_exposed, "phase": _draw_phase, "pigdm": _draw_pigdm}
    for name in names:
        if name not in draw:
            raise SystemExit(f"nonlinear has the pictures {', '.join(draw)}, got {name}")
        draw[name]()


def _draw_over_exposed() -> None:
    """Draws over-exposed photos: reference, measurement, inverse, restored."""
    operator = genprior.make_operator("hdr", factor=1.5)
    sheet = []
    for image in (photo("astronaut", 20, 190, 96), photo("coffee", 60, 250, 96)):
        y = genprior.degrade(image, operator)
        restored = genprior.restore(y, operator, solver=genprior.make_solver("hqs", steps=8))
        sheet.append([image, y, operator.pinv(y), restored.image])
    save("nonlinear", "hdr", sheet)


def _draw_phase() -> None:
    """Draws phase retrieval: reference, measurement, start, restored."""
    operator = genprior.make_operator("phase", oversampling=2)
    sheet = []
    for image in (photo("astronaut", 50, 190, 64), photo("chelsea", 90, 120, 64)):
        y = genprior.degrade(image, operator, 0.05)
        shown = (1 + 10 * y.clamp(min=0)).log().roll((64, 64), (-2, -1))[..., ::2, ::2]
        restored = genprior.restore(y, operator, noise_std=0.05)
        found = (operator.expansion_point(y), restored.image)
        # the half turn that is like the reference: the data cannot tell
        turned = [min((v, v.flip(-1, -2)), key=lambda u, x=image: float((u - x).norm()))
                  for v in found]
        sheet.append([image, shown / shown.max(), *turned])
    save("nonlinear", "phase", sheet)


def _draw_pigdm() -> None:
    """Draws reference, measurement and a sample of PiGDM, of four operators."""
    x, sheet = photo("chelsea", 98, 128), []
    hole = torch.ones(1, 1, 48, 48, dtype=torch.bool)
    hole[..., 16:32, 16:32] = False
    for operator in (
        genprior.make_operator("inpaint", keep=hole),
        genprior.make_operator("hdr", factor=1.5),
        genprior.make_operator("quantise", levels=4),
        genprior.make_operator("jpeg", quality=10),
    ):
        y = genprior.degrade(x, operator)
        solver = genprior.make_solver("pigdm", steps=30)
        sheet.append([x, y, genprior.restore(y, operator, "ddpm", solver, 0.0).image])
    save("nonlinear", "pigdm", sheet)


def _squares(x: Tensor) -> Tensor:
    return (x[..., 1:] + x[..., :-1]).square() / 4


def draw_priors(names: Iterable[str] = PRIORS.own) -> None:
    """Draws samples of each prior, and what it makes of a hole."""
    photos, hole = photo("chelsea", 98, 128), torch.ones(1, 1, 48, 48, dtype=torch.bool)
    hole[..., 14:34, 14:34] = False
    operator = genprior.make_operator("inpaint", keep=hole)
    for name in names:
        if name == "pca":
            pca, face = PCA.from_images(
                faces(), 40, torch.Generator().manual_seed(0)), faces()[:1]
            drawn = genprior.sample(pca, 5, tuple(face.shape[2:]), seed=0)
            cut = half_hole(face)
            y = genprior.degrade(face, cut)
            below = [face, y, genprior.restore(
                y, cut, pca, genprior.make_solver("gaussian", mode="mean")).image]
        elif name == "texture":
            images = [photo(exemplar, 0, 0, 96) for exemplar in ("grass", "gravel", "brick")]
            drawn, below = torch.cat(images[:2]), [images[2]]
            laws = [genprior.estimate_prior("texture", image) for image in images]
            made = [genprior.sample(law, 1, (96, 96)) for law in laws]
            drawn, below = torch.cat([drawn, *made[:2]])[[0, 2, 1, 3]], [*below, made[2]]
        elif name == "planar":
            _draw_flows()
            continue
        elif name in FROM_LECTURE:
            _copy_of_lecture("priors", name)
            continue
        else:
            drawn = genprior.sample(f"{name}:digits", 5, (28, 28), steps=40, seed=0)
            y = genprior.degrade(photos, operator)
            below = [photos, y, genprior.restore(y, operator, name).image]
        save("priors", name, [list(drawn.split(1)), below])


def _copy_of_lecture(kind: str, name: str) -> None:
    """Copies a picture of the lecture as that of a part."""
    drawn = Path(__file__).parent / "lecture" / f"{FROM_LECTURE[name]}.png"
    Image.open(drawn).convert("RGB").save(PICTURES / kind / f"{name}.jpg", quality=85)


def _draw_flows() -> None:
    """Draws points of two clusters, and the densities of a planar and of a radial flow."""
    from genprior.priors.planar import PlanarFlow

    draw, axis = torch.Generator().manual_seed(0), torch.linspace(-3, 3, 96)
    side = torch.randint(2, (4000, 1), generator=draw) * 3.0 - 1.5
    points = torch.cat((side, side / 2), dim=1) + 0.4 * torch.randn(4000, 2, generator=draw)
    counts = torch.histogramdd(points, 48, range=[-3.0, 3.0, -3.0, 3.0]).hist
    cells = [(counts / counts.max()).repeat_interleave(2, 0).repeat_interleave(2, 1)]
    for kind in ("planar", "radial"):
        torch.manual_seed(0)
        flow = PlanarFlow(2, 8, kind)
        optimizer = torch.optim.Adam(flow.parameters(), 0.03)
        for _ in range(300):
            chosen = points[torch.randint(len(points), (128,), generator=draw)][:, None, None]
            loss = -flow.log_prob(chosen).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            grid = torch.cartesian_prod(axis, axis)[:, None, None]
            density = flow.log_prob(grid).exp().reshape(96, 96)
        cells.append(density / density.max())
    save("priors", "planar", [[cell.T.flip(0)[None, None] for cell in cells]])


def draw_baselines(names: Iterable[str] = BASELINES) -> None:
    """Draws a crop, its measurement and the restoration of each classical method."""
    x = photo("chelsea", 90, 120, 64)
    blur = genprior.make_operator("deblur", gaussian=1.6, boundary="reflect")
    small = genprior.make_operator("superres", factor=2)
    hole = genprior.make_operator("inpaint", keep=random_keep(x.shape, missing=0.5))
    box = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    box[..., 20:44, 20:44] = False
    wide = genprior.make_operator("inpaint", keep=box)
    tasks = {"deepinv": [blur], "measurement": [genprior.make_operator("denoise")],
             "biharmonic": [hole, wide], "exemplar": [wide],
             "tv": [hole, wide], "wiener": [blur], "richardson-lucy": [blur], "bicubic": [small],
             "lanczos": [small], "nlm": [genprior.make_operator("denoise")],
             "anscombe": [genprior.make_operator("denoise")],
             "telea": [hole, wide], "navier-stokes": [hole, wide],
             "grey": [genprior.make_operator("colorize")],
             "bilinear": [genprior.make_operator("demosaic")],
             "malvar": [genprior.make_operator("demosaic")]}
    levels: dict[str, float | str] = {"nlm": 0.1, "anscombe": "poisson=20"}
    for name in names:
        if name not in tasks:
            continue  # bm3d, whose licence allows non-commercial use only
        peer, sheet = name == "deepinv", []
        method = make_baseline("deepinv:DiffPIR", max_iter=30) if peer else make_baseline(name)
        prior = "ddpm" if peer or name == "anscombe" else None
        for operator in tasks[name]:
            noise = 0.0 if operator in (hole, wide) else levels.get(name, 0.02)
            y = genprior.degrade(x, operator, noise)
            result = genprior.restore(y, operator, prior, method, noise)
            sheet.append([x, y, result.image])
        save("baselines", name, sheet)


if __name__ == "__main__":
    torch.manual_seed(0)
    for word in sys.argv[1:] or ("operators", "priors", "solvers", "baselines"):
        kind, _, name = word.partition("/")
        draw = {"operators": draw_operators, "priors": draw_priors, "solvers": draw_solvers,
                "baselines": draw_baselines, "nonlinear": draw_nonlinear}[kind]
        draw([name]) if name else draw()
