"""Log-likelihood of held-out images under VAEs and flows.

    python benchmarks/likelihood.py DIGITS [--prior vae:digits --prior glow:digits --prior RUN]

DIGITS: images as for `genprior evaluate`, here digits that none of the priors was trained on. For
a VAE the score is the importance-weighted bound (Burda et al. 2016) in nats; its digits are
binarised at random, with the value of a pixel as the probability of white. For a flow the score is
the bits per dimension of the 8-bit images with uniform dequantisation. Writes
`results/likelihood.md`.
"""

import argparse
import statistics
from pathlib import Path

import torch

from genprior import load_prior
from genprior.core.environment import machine
from genprior.core.random_streams import Noise
from genprior.evaluation.reference_images import collection_name, open_reference_images
from genprior.priors.glow import Glow
from genprior.priors.vae import VAE

RESULTS = Path(__file__).parent / "results"
PIXELS = 10**8
BATCH = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--prior", action="append")
    parser.add_argument("--samples", type=int, default=200, help="importance samples")
    given = parser.parse_args()
    x = torch.cat(
        [image.read(PIXELS).pixels for image in open_reference_images(given.data, PIXELS)]
    )
    lines = ["# Log-likelihood of held-out images", "", "| prior | images | score | mean | ± |",
             "| --- | --- | --- | --- | --- |"]
    for name in given.prior or ["vae:digits", "glow:digits"]:
        prior, values = load_prior(name), []
        for start in range(0, len(x), BATCH):
            part = x[start : start + BATCH]
            noise = Noise(0, range(start, start + len(part)))
            values += _score(prior, part, given.samples, noise)
        half = 1.96 * statistics.stdev(values) / len(values) ** 0.5
        about = f"{Path(name).name} | {len(x)} | {_kind(prior, given.samples)}"
        lines.append(f"| {about} | {statistics.fmean(values):.3f} | {half:.3f} |")
        print(lines[-1], flush=True)
    lines += ["", f"Images: {collection_name(given.data)}; means with 95 % confidence intervals.",
              f"{machine()}.", ""]
    (RESULTS / "likelihood.md").write_text("\n".join(lines))


def _kind(prior: object, samples: int) -> str:
    if isinstance(prior, VAE):
        return f"nats (higher is better), bound of {samples} samples, binarised at random"
    return "bits per dimension (lower is better)"


def _score(prior: object, x: torch.Tensor, samples: int, noise: Noise) -> list[float]:
    if isinstance(prior, VAE):
        return prior.log_likelihood((noise.uniform(x) < x).to(x), samples, noise).tolist()
    if isinstance(prior, Glow):
        with torch.no_grad():
            return prior.bits_per_dim(x, noise).tolist()
    raise SystemExit(f"--prior {type(prior).__name__} has no likelihood: choose a vae or a glow")


if __name__ == "__main__":
    main()
