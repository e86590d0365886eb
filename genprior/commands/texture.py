"""genprior texture: texture synthesis from an exemplar."""

from pathlib import Path

import click

from genprior.commands import options
from genprior.commands.path_types import TypedPath, typed_files


@click.command()
@click.argument("exemplar", metavar="IMG", type=TypedPath())
@options.output_file
@click.option("--size", type=options.Size(),
              help="Height and width of the texture, pixels.  [default: those of IMG]")
@click.option("--adsn", "method", flag_value="adsn", default="adsn",
              help="Asymptotic discrete spot noise: a Gaussian texture (the default).")
@click.option("--rpn", "method", flag_value="rpn",
              help="Random phase noise: keeps the modulus of the spectrum of IMG.")
@options.seed
@options.max_pixels
@options.quiet
@options.overwrite
def texture(
    exemplar: Path, output: Path, size: tuple[int, int] | None, method: str, seed: int,
    max_pixels: int, quiet: bool, overwrite: bool,
) -> None:
    """Synthesise a texture of any size from the image IMG.

    The method is made for micro-textures such as grass, sand and cloth. Of an image with edges or
    objects, such as bricks, it keeps only the colours and correlations.
    """
    from dataclasses import replace

    from genprior.api.estimated_priors import draw_texture, read_exemplar
    from genprior.api.files.outputs import write_output
    from genprior.api.files.paths import check_free

    check_free([output], overwrite, reads=typed_files())
    prior, image = read_exemplar("texture", exemplar, max_pixels, margin=None)
    x = draw_texture(prior, size or image.pixels.shape[-2:], method, seed)
    write_output(output, x, replace(image, exif=None), overwrite)
    if not quiet:
        click.echo(f"{exemplar} -> {output}")
