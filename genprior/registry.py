"""Every operator, prior, solver and baseline by name. Plain dictionaries, no torch.

Adding one is a file, a line here and a test.
"""

from importlib import import_module
from typing import Any

from genprior.errors import SettingError

OPERATORS = {
    "inpaint": "genprior.operators.inpainting:Inpainting",
    "deblur": "genprior.operators.blur:Blur",
    "superres": "genprior.operators.superres:SuperResolution",
    "denoise": "genprior.operators.denoising:Denoising",
    "external": "genprior.operators.external:External",
}

PRIORS = {
    "ddpm": "genprior.priors.ddpm:DDPM",
    "texture": "genprior.priors.texture:Texture",
    "pca": "genprior.priors.pca:PCA",
    "glow": "genprior.priors.glow:Glow",
    "vae": "genprior.priors.vae:VAE",
    "hvae": "genprior.priors.hvae:HVAE",
    "gan": "genprior.priors.gan:GAN",
}
OF_OTHERS = {"denoiser": "genprior.priors.external:External"}
TRAINABLE = ("ddpm", "glow", "vae", "hvae", "gan")
FROM_EXEMPLAR = ("texture",)
FITTED = ("texture", "pca")

SOLVERS = {
    "gaussian": "genprior.inverse.gaussian:GaussianPosterior",
    "posterior-mean": "genprior.inverse.posterior_mean:PosteriorMean",
    "hqs": "genprior.inverse.hqs:HQS",
    "diffpir": "genprior.inverse.diffpir:DiffPIR",
    "pigdm": "genprior.inverse.pigdm:PiGDM",
    "dps": "genprior.inverse.dps:DPS",
    "mmps": "genprior.inverse.mmps:MMPS",
    "moment-matched": "genprior.inverse.moment_matched:MomentMatched",
    "smc": "genprior.inverse.smc:SMC",
    "tmpd": "genprior.inverse.tmpd:TMPD",
    "jfps": "genprior.inverse.jfps:JFPS",
    "ddrm": "genprior.inverse.ddrm:DDRM",
    "daps": "genprior.inverse.daps:DAPS",
    "red-diff": "genprior.inverse.red_diff:REDDiff",
    "pnp-dm": "genprior.inverse.pnp_dm:PnPDM",
    "csgm": "genprior.inverse.latent:CSGM",
    "iagan": "genprior.inverse.iagan:IAGAN",
    "ilo": "genprior.inverse.ilo:ILO",
    "glowip": "genprior.inverse.map:GlowIP",
    "map": "genprior.inverse.map:MAP",
    "patchnr": "genprior.inverse.patches:PatchNR",
    "jpmap": "genprior.inverse.jpmap:JPMAP",
    "pnp-hvae": "genprior.inverse.jpmap:PnPHVAE",
    "langevin": "genprior.inverse.langevin:Langevin",
    "image-langevin": "genprior.inverse.langevin:ImageLangevin",
}

BASELINES = {
    "measurement": "genprior.baselines.measurement:Measurement",
    "biharmonic": "genprior.baselines.biharmonic:Biharmonic",
    "tv": "genprior.baselines.variation:TotalVariation",
    "wiener": "genprior.baselines.wiener:Wiener",
    "richardson-lucy": "genprior.baselines.wiener:RichardsonLucy",
    "bicubic": "genprior.baselines.interpolation:Bicubic",
    "lanczos": "genprior.baselines.interpolation:Lanczos",
    "deepinv": "genprior.baselines.peer:Peer",
}


def lookup(table: dict[str, str], name: str, kind: str) -> Any:
    """The class behind a name.

    Arguments:
        table: One of the dictionaries above.
        name: Key in the table.
        kind: What the table holds, for the message: "prior", "solver", "operator" ...

    Raises:
        SettingError: The name is not in the table; the message lists those that are.
    """
    if name not in table:
        raise SettingError(f"unknown {kind} {name!r}: choose one of {', '.join(sorted(table))}")
    module, attribute = table[name].split(":")
    return getattr(import_module(module), attribute)
