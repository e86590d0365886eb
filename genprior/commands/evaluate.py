"""evaluate: priors x tasks x solvers x seeds on a collection of images."""

import sys
from itertools import product
from pathlib import Path
from typing import Any

import click

from genprior.commands import options
from genprior.commands.path_types import TypedPath
from genprior.commands.provenance import notes_of
from genprior.commands.task_syntax import (
    BASELINES_KNOWN,
    SOLVERS_KNOWN,
    Methods,
    MethodText,
    Numbers,
    Task,
    TaskText,
)
from genprior.core.errors import SomeFailed
from genprior.registry import FROM_EXEMPLAR

REPORT = {"report.md": "the report", "report.json": "the same", "report.csv": "the same",
          "contact.png": "pictures"}


def _flat(context: click.Context, option: click.Option, given: tuple[tuple, ...]) -> tuple:
    """What an option that is repeated lists in all."""
    return sum(given, ())


@click.command()
@click.argument("data", type=TypedPath())
@click.option("-o", "--output", "out", required=True, type=TypedPath(),
              help="Folder of the results; a stopped measurement in it is gone on with.")
@click.option("--task", "tasks", type=Task(), multiple=True, required=True,
              help="KIND:SETTING=VALUE,... with the settings of the restoring commands, noise and "
                   "crop: inpaint:random=0.5, deblur:gaussian=1.6,boundary=circular, "
                   "superres:factor=4,noise=0.01, denoise:noise=25/255; or any linear physics of "
                   "deepinv: deepinv:CompressedSensing,m=2500,noise=0.01. May be repeated.")
@click.option("--prior", "priors", multiple=True, default=["ddpm"], show_default=True,
              callback=lambda context, option, given: ",".join(given),
              help="Names of priors or checkpoint folders, with commas; none for baselines only.")
@options.exemplar
@click.option("--solver", "solvers", type=Methods(SOLVERS_KNOWN), default=["auto"],
              multiple=True, callback=_flat, show_default=True,
              help="Solvers, with commas: NAME[:SETTING=VALUE]...")
@click.option("--baseline", "baselines", type=Methods(BASELINES_KNOWN), multiple=True,
              callback=_flat,
              help=f"Classical methods, with commas: {', '.join(BASELINES_KNOWN)}:NAME; settings "
                   "as of solvers.")
@click.option("--tune", type=TypedPath(), metavar="DATA",
              help="Tune the baselines on these images first.  [default: their default settings]")
@click.option("--tune-count", type=click.IntRange(1), default=8, show_default=True,
              help="Images to tune on, evenly spaced.")
@click.option("--crop", type=click.IntRange(1), help="Side of the centre crop that is taken of "
              "each image, pixels; crop=SIZE in a task overrides it.")
@options.resize
@click.option("--every", type=click.IntRange(1), default=1, show_default=True,
              help="Take every Nth image only.")
@click.option("--samples", type=click.IntRange(1), default=1, show_default=True,
              help="Posterior samples per image, of the solvers that draw them.")
@options.steps
@click.option("--seeds", type=Numbers(), default=["0"], multiple=True, callback=_flat,
              show_default=True,
              help="Seeds of noise and random masks, with commas.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]),
              default="float32", show_default=True, help="Precision of the networks.")
@click.option("--compile", is_flag=True, help="Compile the networks: a minute, for many images.")
@options.device
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True,
              help="Images of one size restored together, for a GPU.")
@click.option("--lpips", is_flag=True, help="Measure LPIPS, too; its weights are fetched.")
@click.option("--show", type=click.IntRange(0), default=4, show_default=True,
              help="Images on the contact sheet.")
@options.max_pixels
@options.as_json
@options.quiet
@click.option("--overwrite", is_flag=True, help="Forget the results in the folder.")
def evaluate(
    data: Path, out: Path, tasks: tuple[TaskText, ...], priors: str, exemplar: Path | None,
    solvers: tuple[MethodText, ...], baselines: tuple[MethodText, ...], tune: Path | None,
    tune_count: int, crop: int | None, resize: int | None, every: int, max_pixels: int,
    as_json: bool, quiet: bool, overwrite: bool, **settings: Any,
) -> None:
    """Measure priors and solvers on a collection of images.

    DATA: a folder of images (not what is in folders in it), an image file, an .npy array
    (N, H, W[, C]), an idx file (MNIST's format), or torchvision:NAME[:FOLDER].

    Every prior goes with every solver that it can, beside the baselines, through every task
    and seed. Results are kept image by image: the same command again goes on where it was
    stopped. Under torchrun the work is shared out.
    """
    from genprior.core.distributed import joined
    from genprior.evaluation.plan import Plan, not_suited
    from genprior.evaluation.reference_images import collection_name, open_reference_images
    from genprior.evaluation.runner import run
    from genprior.evaluation.tuning import tuned
    from genprior.priors.nets.compile import compile_networks

    if exemplar is not None and not set(FROM_EXEMPLAR) & set(priors.split(",")):
        raise click.UsageError(f"--exemplar goes with --prior {' or '.join(FROM_EXEMPLAR)}")
    chosen = [_task(task, crop, resize, max_pixels) for task in tasks]
    methods = _methods(priors, solvers, baselines, exemplar, max_pixels, settings["steps"])
    if settings["compile"]:
        for model in {method.model for method in methods} - {None}:
            compile_networks(model)
    with joined() as ranks, _Bar(quiet or not ranks.first) as bar:
        references, spaced = ranks.local_rank_first(
            lambda: (
                list(enumerate(open_reference_images(data, max_pixels)))[::every],
                _spaced(open_reference_images(tune, max_pixels, held_out=False), tune_count)
                if tune
                else None,
            )
        )
        seen = {truth.digest() for truth in spaced or ()}
        both = sum(truth.digest() in seen for _, truth in references) if seen else 0
        if both:
            raise click.UsageError(f"--tune {tune}: {both} of its images are measured, too")
        where = f"{len(spaced)} images of {collection_name(tune)}" if tune else None
        note = {"tuned on": where, "exemplar": exemplar and exemplar.name}
        plan = Plan(references, chosen, methods, settings=note, **settings)
        unsuited = not_suited(plan)
        for method in plan.methods:
            if all((task.text, method.name) in unsuited for task in chosen):
                bar.say(f"{method.name} is made for none of the tasks: left out")
        if ranks.first:
            _claim(data, out, overwrite)
        ranks.wait()
        if tune:
            if ranks.first:
                tuned(plan, spaced, out, lambda name: bar.say(f"tuning {name}"))
            ranks.wait()
            plan = tuned(plan, spaced, out)
        records = run(plan, out, ranks, bar.update)
        if ranks.first:
            notes = notes_of(collection_name(data), plan, unsuited, where, records)
            texts = _write(out, records, plan.samples, notes)
            why = {r["method"]: r["failed"] for r in records if "failed" in r}
            for name, reason in why.items():
                bar.say(f"{name} failed, the report says on which images: {reason}")
    if ranks.first and (as_json or not quiet):
        click.echo(texts["report.json" if as_json else "table"])
        if not as_json:
            written = [name for name in REPORT if (out / name).exists()]
            click.echo(f"{out / written[0]} {' '.join(written[1:])}")
    if ranks.first and records and all("failed" in record for record in records):
        raise SomeFailed("every measurement failed")


def _task(task: TaskText, crop: int | None, resize: int | None, max_pixels: int) -> Any:
    from genprior.evaluation.plan import Task

    crop = task.crop or crop
    return Task(task.text, task.kind, task.settings, task.noise, crop, max_pixels, resize)


def _methods(
    priors: str, solvers: tuple[MethodText, ...], baselines: tuple[MethodText, ...],
    exemplar: Path | None, max_pixels: int, steps: int | None,
) -> list:
    """Every prior with every solver, then the baselines."""
    from genprior.api.factory import make_baseline
    from genprior.evaluation.plan import Method, load_method_prior
    from genprior.priors.base import Denoiser

    loaded = [
        (name, *load_method_prior(name, exemplar, max_pixels))
        for name in priors.split(",") if name and name != "none"
    ]
    methods = []
    chosen = {text.text: _solver(text, steps) for text in solvers}
    for (name, model, sha256), text in product(loaded, solvers):
        if _can(model, text.name):
            title = f"{name} {text.text}"
            methods.append(Method(title, chosen[text.text], name, model, sha256))
    for name, *_ in loaded:
        if not any(method.prior == name for method in methods):
            raise click.UsageError(f"none of the solvers suits --prior {name}: add auto")
    for text in solvers if loaded else ():
        if not any(_can(model, text.name) for _, model, _ in loaded):
            raise click.UsageError(f"--solver {text.text} suits none of the priors: leave it out")
    for text in baselines:
        solver = make_baseline(text.name, **text.settings)
        if solver.needs is not Denoiser:
            methods.append(Method(text.text, solver, typed=tuple(text.settings)))
            continue
        able = [entry for entry in loaded if isinstance(entry[1], Denoiser)]
        if not able:
            raise click.UsageError(f"--baseline {text.text} needs a --prior that is a denoiser")
        for name, model, sha256 in able:
            title = text.text if len(able) == 1 else f"{text.text} ({name})"
            typed = tuple(text.settings)
            methods.append(Method(title, solver, name, model, sha256, typed=typed))
    if not methods:
        raise click.UsageError("there is nothing to measure: give --prior or --baseline")
    return methods


def _solver(text: MethodText, steps: int | None) -> Any:
    """A solver by its name, or with what is typed of it; steps that are typed come first."""
    from dataclasses import fields

    from genprior.api.factory import make_solver

    if not text.settings:
        return text.name
    solver = make_solver(text.name, **text.settings)
    if steps is None or "steps" not in {field.name for field in fields(solver)}:
        return solver
    return make_solver(text.name, **{"steps": steps, **text.settings})


def _can(model: Any, solver: str) -> bool:
    """Whether a prior has what a solver needs; one that each image has its own of is Gaussian."""
    from genprior.priors.base import Gaussian
    from genprior.registry import SOLVERS, lookup

    if solver == "auto":
        return True
    needs = lookup(SOLVERS, solver, "solver").needs
    return issubclass(Gaussian, needs) if model is None else isinstance(model, needs)


def _spaced(references: list, count: int) -> list:
    count = min(count, len(references))
    return [references[k * len(references) // count] for k in range(count)]


def _claim(data: Path, out: Path, overwrite: bool) -> None:
    """Makes sure that the folder of the results holds no others' files; may empty it."""
    from genprior.evaluation.pictures import picture_files
    from genprior.evaluation.results_store import SETTINGS, ResultsStore, holds
    from genprior.evaluation.runner import KEYS
    from genprior.evaluation.tuning import TUNING

    if out.exists() and data.exists() and out.samefile(data):
        raise click.UsageError(f"-o {out} holds the images: choose another -o")
    reports = [out / name for name in REPORT if (out / name).exists()]
    ours = holds(out / SETTINGS, ("tasks", "methods", "images"))
    others = [path for path in (out / SETTINGS, *reports) if path.exists() and not ours]
    tuning = out / TUNING
    others += [tuning] if tuning.exists() and not holds(tuning, ("found", "images")) else []
    if others:
        raise click.UsageError(f"{others[0]} is of no evaluation: choose another -o")
    if overwrite:
        tuning.unlink(missing_ok=True)
    if overwrite and ours:
        ResultsStore(out, KEYS).clear()
        for path in (*reports, *picture_files(out)):
            path.unlink()


def _write(out: Path, records: list, samples: int, notes: dict[str, str]) -> dict[str, str]:
    from genprior.core.atomic_files import write_atomic
    from genprior.evaluation.contact_sheet import contact_sheet
    from genprior.evaluation.report import as_csv, as_json, markdown, table
    from genprior.evaluation.summary import summarise

    rows = summarise(records)
    texts = {
        "report.md": markdown(rows, samples, notes),
        "report.json": as_json(rows, samples, notes),
        "report.csv": as_csv(rows),
    }
    for name, text in texts.items():
        data = text.encode(errors="backslashreplace")  # names of files may be any bytes
        write_atomic(out / name, lambda file, data=data: file.write(data))
    contact_sheet(records, out, out / "contact.png")
    return {**texts, "table": table(rows)}


class _Bar:
    """A progress bar over the results, on stderr."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.bar = quiet, None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, done: int, total: int, what: str) -> None:
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit="result", disable=True if self.quiet else None,
                            leave=False, file=sys.stderr)
        self.bar.set_postfix_str(what, refresh=False)
        self.bar.update(done - self.bar.n)

    def say(self, text: str) -> None:
        if not self.quiet:
            click.echo(text, err=True)
