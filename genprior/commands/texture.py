"""texture: synthesise a texture of any size from an exemplar."""

from pathlib import Path

import click

from genprior.commands import options
from genprior.commands.path_types import TypedPath, typed_files


@click.command()
@click.argument("exemplar", metavar="IMG", type=TypedPath())
@options.output_file
@click.option("--size", type=options.Size(),
              help="Height and width in pixels.  [default: those of IMG]")
@click.option("--adsn", "method", flag_value="adsn", default="adsn",
              help="Gaussian texture: asymptotic discrete spot noise (the default).")
@click.option("--rpn", "method", flag_value="rpn",
              help="Random phase noise: the modulus of the spectrum is kept.")
@options.seed
@options.max_pixels
@options.quiet
@options.overwrite
def texture(
    exemplar: Path, output: Path, size: tuple[int, int] | None, method: str, seed: int,
    max_pixels: int, quiet: bool, overwrite: bool,
) -> None:
    """Synthesise a texture of any size from the picture IMG.

    Made for micro-textures (grass, sand, cloth): what has objects or edges in it, such as
    bricks, keeps its colours and correlations only.
    """
    from dataclasses import replace

    from genprior.api.estimated_priors import draw_texture, read_exemplar
    from genprior.api.files.paths import check_free
    from genprior.io.images import write_image

    check_free([output], overwrite, reads=typed_files())
    prior, picture = read_exemplar("texture", exemplar, max_pixels, margin=None)
    x = draw_texture(prior, size or picture.pixels.shape[-2:], method, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_image(output, x, like=replace(picture, exif=None))
    if not quiet:
        click.echo(f"{exemplar} -> {output}")
