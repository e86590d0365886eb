"""genprior serve: the web page on this machine."""

import ipaddress
from collections.abc import Iterable

import click

from genprior.commands import options
from genprior.priors.weights import embedded_priors
from genprior.registry import FROM_EXEMPLAR, find_prior

# Packages of the extra "web".
EXTRA = ("starlette", "uvicorn")
# A photograph of 60 megapixels fits; its restoration needs some gigabytes.
MAX_PIXELS = 2**26


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address of this machine to listen at. Others than 127.0.0.1 can be reached "
                   "from the network, without encryption.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True,
              help="Port to listen at; 0 chooses a free one.")
@click.option("--prior", "given", multiple=True, metavar="NAME_OR_FOLDER",
              help="Prior to offer first, such as the folder of a training run; the shipped ones "
                   "follow. May be repeated.")
@options.device
@click.option("--max-megabytes", type=click.IntRange(1, 4096), default=64, show_default=True,
              help="Refuse larger files (MiB), before they are read.")
@click.option("--max-pixels", type=click.IntRange(1), default=MAX_PIXELS, show_default=True,
              help="Refuse images with more pixels, before they are decoded.")
def serve(
    host: str, port: int, given: tuple[str, ...], device: str, max_megabytes: int, max_pixels: int
) -> None:
    """Serve a web page to restore images, on this machine.

    Open the address that is printed. It holds a secret token, which is new at each start. Images
    stay in memory: nothing is written to disk and nothing leaves the machine. Ctrl-C ends it.
    """
    _check_priors(name for name in given if name not in FROM_EXEMPLAR)
    shipped = sorted(embedded_priors(), key=lambda name: (name != "ddpm", name))
    priors = {name: name for name in (*given, *shipped, *FROM_EXEMPLAR)}
    try:
        from genprior.web.server import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise click.UsageError(
            f'the page needs the package {error.name}: pip install "genprior[web]"'
        ) from error
    from genprior.web.restoration import Restorer

    def announce(address: str) -> None:
        if not _is_loopback(host):
            click.echo("warning: the page can be reached from the network, without encryption, "
                       "by all who have the address", err=True)
        click.echo(f"{address}\nOpen this address in a browser. Ctrl-C ends the server.")

    try:
        run(host, port, Restorer(priors, device, max_pixels), max_megabytes * 2**20, announce)
    except KeyboardInterrupt:  # the usual end of a server
        click.echo("stopped")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_priors(names: Iterable[str]) -> None:
    """Raises CheckpointError where a prior does not exist, before the server starts."""
    from genprior.priors.external import is_external, local_copy

    for name in names:
        source = local_copy(name)
        if not is_external(source):
            find_prior(source)
