"""genprior sample: images drawn from a prior."""

from pathlib import Path
from typing import Any

import click

from genprior.commands import options
from genprior.commands.path_types import typed_files
from genprior.commands.progress import Progress
from genprior.io.limits import MAX_SAMPLES, MAX_STEPS


@click.command()
@options.prior
@options.exemplar
@options.max_pixels
@options.output_file
@click.option("--count", type=click.IntRange(1, MAX_SAMPLES), default=1, show_default=True,
              help="Number of images.")
@click.option("--size", type=options.Size(),
              help="Height and width of each image, pixels.  [default: the size of the prior or "
                   "of its training crops, or 256x256 if it has none]")
@click.option("--eta", type=click.FloatRange(0, 1), default=1.0, show_default=True,
              help="Stochasticity of a diffusion prior: 1 is ancestral sampling, 0 is DDIM.")
@click.option("--steps", type=click.IntRange(1, MAX_STEPS), default=100, show_default=True,
              help="Network evaluations of a diffusion prior.")
@click.option("--temperature", type=click.FloatRange(0), default=1.0, show_default=True,
              help="Factor of the latents of a prior with a decoder, such as vae, gan or glow; "
                   "below 1 the images are more typical and less varied.")
@click.option("--truncation", type=click.FloatRange(0, min_open=True),
              help="Draw the latents of a prior with a decoder from the normal distribution "
                   "truncated to this bound, as for BigGAN: the lower, the more typical and the "
                   "less varied the images are.  [default: not truncated]")
@options.seed
@options.device
@options.quiet
@options.overwrite
def sample(
    prior: str, prior_settings: dict[str, Any], exemplar: Path | None, max_pixels: int,
    output: Path, count: int, size: tuple[int, int] | None, eta: float, steps: int,
    temperature: float, truncation: float | None, seed: int, device: str, quiet: bool,
    overwrite: bool,
) -> None:
    """Draw images from a prior, side by side in one file."""
    from genprior import api
    from genprior.api.files.outputs import write_output
    from genprior.api.files.paths import check_free
    from genprior.io.panels import panel

    if size is not None and size[0] * size[1] > max_pixels:
        raise click.UsageError(f"--size {size[0]}x{size[1]} is more than {max_pixels} pixels: "
                               f"choose a smaller size, or raise --max-pixels if memory allows")
    check_free([output], overwrite, reads=typed_files())
    model, channels = prior, None
    if prior_settings:
        model = api.load_prior(prior, **prior_settings)
    if exemplar is not None:
        from genprior.api.estimated_priors import read_exemplar

        model, image = read_exemplar(prior, exemplar, max_pixels, margin=None)
        channels = image.pixels.shape[1]
    with Progress(quiet) as progress:
        x = api.sample(model, count, size, channels, steps=steps, eta=eta,
                       temperature=temperature, truncation=truncation, seed=seed, device=device,
                       progress=progress.update)
        write_output(output, panel(list(x.cpu().split(1))), overwrite=overwrite)
        progress.write(str(output))
