"""Registry of operators, priors, solvers, baselines and shipped weights, by name. No torch.

A new one of this package is a file, a line here and a test. Other packages add theirs by entry
points in the groups genprior.operators, genprior.priors and genprior.solvers, in their
pyproject.toml:

    [project.entry-points."genprior.solvers"]
    my-solver = "my_package.my_module:MySolver"
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from genprior.core.errors import CheckpointError, SettingError
from genprior.priors.weights import embedded_priors


class Registry(Mapping[str, str]):
    """Classes by name, as "module:class": those of this package, then those of plug-ins.

    Arguments:
        group: Entry point group of the plug-ins.
        own: The classes of this package; a plug-in cannot replace one.
    """

    def __init__(self, group: str, own: Mapping[str, str]) -> None:
        self.group, self.own = group, dict(own)

    @cached_property
    def plugins(self) -> dict[str, str]:
        """The classes that installed packages add."""
        from importlib.metadata import entry_points  # slow to import, and not needed for --help

        found = {entry.name: entry.value for entry in entry_points(group=self.group)}
        return {name: value for name, value in found.items() if name not in self.own}

    def __getitem__(self, name: str) -> str:
        return self.own[name] if name in self.own else self.plugins[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self.plugins

    def __len__(self) -> int:
        return len(self.own) + len(self.plugins)


OPERATORS = Registry("genprior.operators", {
    "inpaint": "genprior.operators.inpainting:Inpainting",
    "deblur": "genprior.operators.blur:Blur",
    "superres": "genprior.operators.superres:SuperResolution",
    "denoise": "genprior.operators.denoising:Denoising",
    "jpeg": "genprior.operators.jpeg:JPEG",
    "colorize": "genprior.operators.colour:Luminance",
    "demosaic": "genprior.operators.colour:Mosaic",
    "superres-kernel": "genprior.operators.kernel_superres:KernelSuperResolution",
    "compressed-sensing": "genprior.operators.compressed_sensing:CompressedSensing",
    "external": "genprior.operators.external:External",
    "hdr": "genprior.operators.clipping:Clipping",
    "gamma": "genprior.operators.clipping:Gamma",
    "quantise": "genprior.operators.quantisation:Quantisation",
    "phase": "genprior.operators.phase_retrieval:PhaseRetrieval",
    "coded-diffraction": "genprior.operators.phase_retrieval:CodedDiffraction",
    "nonlinear": "genprior.operators.external_nonlinear:ExternalNonlinear",
})

PRIORS = Registry("genprior.priors", {
    "ddpm": "genprior.priors.ddpm:DDPM",
    "texture": "genprior.priors.texture:Texture",
    "pca": "genprior.priors.pca:PCA",
    "glow": "genprior.priors.glow:Glow",
    "vae": "genprior.priors.vae:VAE",
    "hvae": "genprior.priors.hvae:HVAE",
    "gan": "genprior.priors.gan:GAN",
    "planar": "genprior.priors.planar:PlanarFlow",
    "pix2pix": "genprior.priors.pix2pix:Pix2Pix",
})
OF_OTHERS = {
    "denoiser": "genprior.priors.external.callable:External",
    "pipeline": "genprior.priors.external.diffusers_unet:from_pipeline",
    "complex": "genprior.priors.complex_parts:ComplexParts",
}
# Formats of other packages that --format names (genprior.priors.external).
FORMATS = ("guided-diffusion", "torchcfm", "edm", "drunet", "ircnn",
           "pytorch-examples-vae", "pytorch-examples-dcgan", "stylegan2", "bf-cnn", "bf-dncnn",
           "convolutional-denoiser", "spandrel", "diffusers")
TRAINABLE = ("ddpm", "glow", "vae", "hvae", "gan", "planar", "pix2pix")
# Priors of points, arrays (N, n), in place of images.
OF_POINTS = ("planar",)
# Conditional generators, trained on pairs: images, and reconstructions of their measurements.
OF_PAIRS = ("pix2pix",)
FROM_EXEMPLAR = ("texture",)
FITTED = ("texture", "pca")

SOLVERS = Registry("genprior.solvers", {
    "gaussian": "genprior.inverse.gaussian.posterior:GaussianPosterior",
    "posterior-mean": "genprior.inverse.plug_and_play.posterior_mean:PosteriorMean",
    "hqs": "genprior.inverse.plug_and_play.hqs:HQS",
    "dithered-mean": "genprior.inverse.plug_and_play.dithered_mean:DitheredMean",
    "diffpir": "genprior.inverse.diffusion.diffpir:DiffPIR",
    "pigdm": "genprior.inverse.diffusion.pigdm:PiGDM",
    "dps": "genprior.inverse.diffusion.dps:DPS",
    "mmps": "genprior.inverse.diffusion.mmps:MMPS",
    "moment-matched": "genprior.inverse.diffusion.moment_matched:MomentMatched",
    "smc": "genprior.inverse.diffusion.smc:SMC",
    "tmpd": "genprior.inverse.diffusion.tmpd:TMPD",
    "jfps": "genprior.inverse.diffusion.jfps:JFPS",
    "ddrm": "genprior.inverse.diffusion.ddrm:DDRM",
    "daps": "genprior.inverse.diffusion.daps:DAPS",
    "red-diff": "genprior.inverse.diffusion.red_diff:REDDiff",
    "pnp-flow": "genprior.inverse.plug_and_play.pnp_flow:PnPFlow",
    "flow-dps": "genprior.inverse.diffusion.flow_dps:FlowDPS",
    "pnp-dm": "genprior.inverse.diffusion.pnp_dm:PnPDM",
    "psld": "genprior.inverse.latent.psld:PSLD",
    "resample": "genprior.inverse.latent.resample:ReSample",
    "latent-daps": "genprior.inverse.latent.daps:LatentDAPS",
    "csgm": "genprior.inverse.optimization.csgm:CSGM",
    "iagan": "genprior.inverse.optimization.iagan:IAGAN",
    "ilo": "genprior.inverse.optimization.ilo:ILO",
    "glowip": "genprior.inverse.optimization.glowip:GlowIP",
    "map": "genprior.inverse.optimization.map:MAP",
    "patchnr": "genprior.inverse.optimization.patchnr:PatchNR",
    "jpmap": "genprior.inverse.optimization.jpmap:JPMAP",
    "pnp-hvae": "genprior.inverse.optimization.jpmap:PnPHVAE",
    "langevin": "genprior.inverse.optimization.langevin:Langevin",
    "amortized": "genprior.inverse.amortized.amortized:Amortized",
    "image-langevin": "genprior.inverse.optimization.langevin:ImageLangevin",
})

BASELINES = {
    "measurement": "genprior.inverse.baselines.identity:Measurement",
    "biharmonic": "genprior.inverse.baselines.biharmonic:Biharmonic",
    "exemplar": "genprior.inverse.baselines.exemplar:Exemplar",
    "tv": "genprior.inverse.baselines.total_variation:TotalVariation",
    "wiener": "genprior.inverse.baselines.wiener:Wiener",
    "richardson-lucy": "genprior.inverse.baselines.wiener:RichardsonLucy",
    "bicubic": "genprior.inverse.baselines.interpolation:Bicubic",
    "lanczos": "genprior.inverse.baselines.interpolation:Lanczos",
    "nlm": "genprior.inverse.baselines.non_local_means:NonLocalMeans",
    "bm3d": "genprior.inverse.baselines.bm3d:BM3D",
    "anscombe": "genprior.inverse.baselines.anscombe:Anscombe",
    "telea": "genprior.inverse.baselines.opencv_inpainting:Telea",
    "navier-stokes": "genprior.inverse.baselines.opencv_inpainting:NavierStokes",
    "grey": "genprior.inverse.baselines.colour:Grey",
    "bilinear": "genprior.inverse.baselines.colour:Bilinear",
    "malvar": "genprior.inverse.baselines.colour:Malvar",
    "deepinv": "genprior.inverse.baselines.deepinv_method:Peer",
}


def lookup(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Returns the class registered under a name.

    Arguments:
        table: One of the tables above.
        name: Key in the table.
        kind: What the table holds, for the error message: "prior", "solver", "operator" ...

    Raises:
        SettingError: The name is not in the table; the message lists the valid names.
    """
    if name not in table:
        raise SettingError(f"unknown {kind} {name!r}: choose one of {', '.join(sorted(table))}")
    module, attribute = table[name].split(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if module.startswith("genprior."):
            raise
        raise SettingError(
            f"{kind} {name!r} is a plug-in, and {table[name]} cannot be imported: {error}"
        ) from error


def find_prior(name: str | Path) -> Path:
    """Returns the checkpoint folder of a prior, given its name or a path.

    Raises:
        CheckpointError: No shipped prior has that name and no such folder exists.
    """
    known = embedded_priors()
    if str(name) in known:
        return known[str(name)]
    if Path(name).is_dir():
        return Path(name)
    if name in FROM_EXEMPLAR:
        raise CheckpointError(
            f"prior {name!r} has no weights, it is estimated from an image: use --exemplar, or "
            f"genprior.estimate_prior in Python"
        )
    if Path(name).suffix == ".pkl" and Path(name).is_file():
        raise CheckpointError(
            f"{name} is a pickled program, as of EDM or StyleGAN3, which only running code could "
            f"read; nothing in it was run: if you trust it, save the state_dict of its network "
            f"with torch.save, and see docs/external-priors.md for the networks that are known"
        )
    if Path(name).is_file():
        raise CheckpointError(
            f"{name} is a file, but a prior is a folder with a manifest, or a file of weights "
            f"(.pt, .pth, .safetensors): convert weights of genprior with "
            f"genprior import {name} --prior NAME -o FOLDER"
        )
    names = f"choose one of {', '.join(known)}, or " if known else ""
    raise CheckpointError(f"unknown prior {str(name)!r}: {names}give the folder of a checkpoint")
