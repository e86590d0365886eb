"""Log-likelihood of held-out images under the priors that have one.

    python benchmarks/likelihood.py DIGITS [--prior vae:digits --prior glow:digits --prior RUN]

DIGITS: whatever `genprior evaluate` takes, here the digits that none of the priors was trained
on. A VAE gets the importance-weighted bound (Burda et al. 2016) in nats, of digits binarised at
random, each pixel white with its value for probability; a flow bits per dimension of the 8-bit
images, uniformly dequantised. Writes `results/likelihood.md`.
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
        [truth.read(PIXELS).pixels for truth in open_reference_images(given.data, PIXELS)]
    )
    lines = ["# Log-likelihood of held-out images", "", "| prior | images | what | mean | ± |",
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
    lines += ["", f"Images: {collection_name(given.data)}; means with 95 % intervals over them.",
              f"{machine()}.", ""]
    (RESULTS / "likelihood.md").write_text("\n".join(lines))


def _kind(prior: object, samples: int) -> str:
    if isinstance(prior, VAE):
        return f"nats (more is better), bound of {samples} samples, binarised at random"
    return "bits per dimension (less is better)"


def _score(prior: object, x: torch.Tensor, samples: int, noise: Noise) -> list[float]:
    if isinstance(prior, VAE):
        return prior.log_likelihood((noise.uniform(x) < x).to(x), samples, noise).tolist()
    if isinstance(prior, Glow):
        with torch.no_grad():
            return prior.bits_per_dim(x, noise).tolist()
    raise SystemExit(f"{type(prior).__name__} has no likelihood: choose a vae or a glow")


if __name__ == "__main__":
    main()
