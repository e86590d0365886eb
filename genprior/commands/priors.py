"""genprior priors: list, describe, verify, export and pack priors."""

import json
from pathlib import Path

import click

from genprior.commands import options
from genprior.commands.path_types import TypedPath
from genprior.io.limits import MAX_STEPS
from genprior.priors.weights import embedded_priors
from genprior.registry import (
    FITTED,
    FROM_EXEMPLAR,
    PRIORS,
    SOLVERS,
    TRAINABLE,
    find_prior,
    lookup,
)


@click.group()
def priors() -> None:
    """List, describe, verify, export and pack priors."""


@priors.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """List the shipped, the trainable, the computed and the exemplar-based priors.

    The first lines are the priors whose weights ship with the package: pass their names to
    --prior. Then come the priors that `genprior train` trains step by step, those that it
    computes in closed form, and those that are estimated from one image (--exemplar).
    """
    shipped = {}
    for name, folder in embedded_priors().items():
        manifest = json.loads((folder / "manifest.json").read_text())
        shipped[name] = manifest.get("summary", "")
    groups = {"trainable": TRAINABLE, "computed": FITTED, "from an exemplar": FROM_EXEMPLAR}
    if as_json:
        rows = [{"name": name, "summary": summary} for name, summary in shipped.items()]
        lists = {name.replace(" ", "_"): list(names) for name, names in groups.items()}
        click.echo(json.dumps({"shipped": rows, **lists}, indent=1))
        return
    for name, summary in shipped.items():
        click.echo(f"{name:16} {summary}")
    for title, names in groups.items():
        click.echo(f"{title}: {', '.join(names)}")


@priors.command()
@click.argument("where")
@options.format_and_offline
def info(where: str, prior_format: str | None, offline: bool) -> None:
    """Print the manifest of a prior: its settings, its training and its checksums.

    WHERE: a shipped prior, a checkpoint folder, a folder of diffusers, a file of weights, or
    hf:ORG/NAME. It also prints which solvers take the prior; of formats of other packages, what
    the files show, and what is assumed.
    """
    from genprior.priors.external import is_external, load, local_copy

    path = local_copy(options.located(where, prior_format, offline))
    if is_external(path):
        prior, manifest = load(path)
        cls = type(prior)
    else:
        from genprior.priors.checkpoint import newest, read_manifest

        manifest = read_manifest(newest(find_prior(path)))
        known = manifest["prior"] in PRIORS
        cls = lookup(PRIORS, manifest["prior"], "prior") if known else object
    manifest["solvers"] = [
        name for name in SOLVERS if issubclass(cls, lookup(SOLVERS, name, "solver").needs)
    ]
    click.echo(json.dumps(manifest, indent=1))


@priors.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Compare the checksums of weights with their manifests.

    NAMES: shipped priors or checkpoint folders.  [default: all shipped priors]
    """
    from genprior.api.factory import load_checkpoint

    for name in names or tuple(embedded_priors()):
        load_checkpoint(find_prior(name))
        click.echo(f"{name}: ok")


@priors.command()
@click.argument("run")
@click.option("-o", "--output", required=True, type=TypedPath(), help="The new folder.")
@click.option("--summary", default="", help="One line about the prior.  [default: as in RUN]")
@click.option("--licence", default="",
              help="Licence of the weights, such as mit.  [default: as in RUN]")
@click.option("--count", type=click.IntRange(1, 256), default=16, show_default=True,
              help="Images of the sample grid.")
@click.option("--steps", type=click.IntRange(1, MAX_STEPS), default=100, show_default=True,
              help="Network evaluations per image of a diffusion prior.")
@click.option("--format", "written", type=click.Choice(["genprior", "diffusers"]),
              default="genprior", show_default=True,
              help="Format of the folder. diffusers is for priors that are a folder of diffusers: "
                   "its weights become safetensors, and a LoRA file is added to them.")
@click.option("--onnx", is_flag=True, help="Also write the denoiser as ONNX (extra onnx).")
@click.option("--push", metavar="ORG/NAME",
              help="Upload the folder to this repository of the Hugging Face Hub (extra hub).")
@click.option("--private", is_flag=True, help="A repository that --push creates is private.")
def export(
    run: str, output: Path, summary: str, licence: str, count: int, steps: int, written: str,
    onnx: bool, push: str | None, private: bool,
) -> None:
    """Write a prior with a model card and a grid of samples, to share it.

    RUN: a shipped prior, a checkpoint folder, or the folder of a training run; with --format
    diffusers a folder of diffusers. The new folder can restore and sample; it cannot be resumed.
    The model card, README.md, tells data, licence, quality and settings as far as the manifest of
    RUN has them.
    """
    if output.exists():
        raise click.UsageError(f"{output} exists: choose another -o")
    if onnx and written != "genprior":
        raise click.UsageError("--onnx is for --format genprior: leave one of them out")
    from genprior.api.export import export_diffusers, export_prior
    from genprior.api.export import push as upload

    if written == "diffusers":
        export_diffusers(run, output, summary, licence, count, steps)
    else:
        export_prior(run, output, summary, licence, count, steps, onnx)
    click.echo(str(output))
    if push:
        click.echo(upload(output, push, private))


@priors.command()
@click.argument("source", type=TypedPath())
@click.option("-o", "--output", required=True, type=TypedPath(),
              help="Folder of the new checkpoint.")
@click.option("--summary", default="",
              help="Description of the prior that `genprior priors list` prints.")
def pack(source: Path, output: Path, summary: str) -> None:
    """Copy a checkpoint in half precision, without the state of its training.

    SOURCE: a checkpoint folder. The copy can restore and sample; it cannot be resumed.
    """
    if output.exists():
        raise click.UsageError(f"{output} exists: choose another -o")
    from genprior.priors.checkpoint import pack as pack_checkpoint

    pack_checkpoint(source, output, {"summary": summary} if summary else {})
    click.echo(str(output))
