"""genprior evaluate: measurement of priors, solvers and baselines on a collection of images."""

import os
from itertools import product
from pathlib import Path
from typing import Any

import click

from genprior.commands import options
from genprior.commands.console import fail_silently
from genprior.commands.path_types import TypedPath
from genprior.commands.progress import Progress
from genprior.commands.provenance import notes_of
from genprior.commands.task_syntax import (
    Methods,
    MethodText,
    Numbers,
    Task,
    TaskText,
)
from genprior.core.errors import SomeFailed
from genprior.io.limits import MAX_SAMPLES
from genprior.registry import BASELINES, FROM_EXEMPLAR, SOLVERS

REPORT = {"report.md": "the report", "report.json": "the same", "report.csv": "the same",
          "contact.png": "images", "reliability.png": "reliability curves of samples"}


def _concatenate(context: click.Context, option: click.Option, given: tuple[tuple, ...]) -> tuple:
    """Joins the lists of a repeated option."""
    return sum(given, ())


@click.command()
@click.argument("data", type=TypedPath())
@click.option("-o", "--output", "out", required=True, type=TypedPath(),
              help="Folder of the results. An interrupted evaluation in it is resumed.")
@click.option("--task", "tasks", type=Task(), multiple=True, required=True,
              help="Task KIND:SETTING=VALUE,... with the options of the command KIND, noise and "
                   "crop as settings: inpaint:random=0.5, deblur:gaussian=1.6,boundary=circular, "
                   "superres:factor=4,noise=0.01, demosaic:pattern=RGGB, denoise:noise=25/255, "
                   "denoise:noise=poisson=30. Also phase:oversampling=2 or phase:masks=4, "
                   "gamma:gamma=0.45 and quantise:levels=8. Any physics of "
                   "deepinv: deepinv:CompressedSensing,m=2500,noise=0.01. May be repeated.")
@click.option("--prior", "priors", multiple=True, default=["ddpm"], show_default=True,
              callback=lambda context, option, given: ",".join(given),
              help="Names of priors or checkpoint folders, separated by commas. none: baselines "
                   "only.")
@options.prior_settings
@options.exemplar
@click.option("--solver", "solvers", type=Methods(("auto",), SOLVERS), default=["auto"],
              multiple=True, callback=_concatenate, show_default=True,
              help="Solvers, with commas: NAME[:SETTING=VALUE]... (see: genprior solvers).")
@click.option("--baseline", "baselines", type=Methods(BASELINES), multiple=True,
              callback=_concatenate,
              help="Classical or peer methods to compare with, with commas: "
                   f"{', '.join(BASELINES)}:NAME; settings as for --solver.")
@click.option("--tune", type=TypedPath(), metavar="DATA",
              help="Tune the settings of the baselines on these images first. They must not be "
                   "among the evaluated ones.  [default: no tuning]")
@click.option("--tune-count", type=click.IntRange(1), default=8, show_default=True,
              help="Number of images of --tune to use, evenly spaced.")
@click.option("--crop", type=click.IntRange(1), help="Side of the centre crop of each image, "
              "pixels; crop=SIZE in a task overrides it.  [default: the whole image]")
@options.resize
@click.option("--every", type=click.IntRange(1), default=1, show_default=True,
              help="Evaluate every Nth image only.")
@click.option("--samples", type=click.IntRange(1, MAX_SAMPLES), default=1, show_default=True,
              help="Posterior samples per image, for the solvers that draw samples.")
@options.steps
@options.quality
@click.option("--seeds", type=Numbers(), default=["0"], multiple=True, callback=_concatenate,
              show_default=True,
              help="Seeds of the noise and the random masks, separated by commas. Every task is "
                   "evaluated with every seed.")
@options.dtype
@click.option("--compile", is_flag=True,
              help="Compile the networks. It takes about a minute and pays off with many images.")
@options.device
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True,
              help="Number of images of equal size to restore together; more is faster on a GPU.")
@click.option("--lpips", is_flag=True,
              help="Also measure LPIPS; its weights are downloaded at first use.")
@click.option("--show", type=click.IntRange(0), default=4, show_default=True,
              help="Number of images on the contact sheet; 0 writes none.")
@options.max_pixels
@options.as_json
@options.quiet
@click.option("--overwrite", is_flag=True,
              help="Delete the earlier results in the output folder and start again.")
def evaluate(
    data: Path, out: Path, tasks: tuple[TaskText, ...], priors: str,
    prior_settings: dict[str, Any], exemplar: Path | None, solvers: tuple[MethodText, ...],
    baselines: tuple[MethodText, ...], tune: Path | None, tune_count: int, crop: int | None,
    resize: int | None, every: int, max_pixels: int, as_json: bool, quiet: bool, overwrite: bool,
    **settings: Any,
) -> None:
    """Evaluate priors and solvers on a collection of images.

    DATA: a folder of images (subfolders are ignored), an image file, an .npy array
    (N, H, W[, C]), an idx file (the format of MNIST), or torchvision:NAME[:FOLDER].

    Every prior is combined with every solver that it supports. --prompt, --guidance and --lora
    hold for all priors of latent diffusion. These methods and the baselines
    restore every image for every task and seed. The results are PSNR, SSIM and further scores in
    report.md, report.json and report.csv, and the images in contact.png. With --samples they
    include coverage at 50, 80, 90 and 95 %, interval width and CRPS, and reliability.png shows
    reliability curves and rank histograms.

    Results are stored image by image, so the same command resumes an interrupted evaluation.
    Under torchrun the processes share the work.
    """
    from genprior.core.distributed import joined
    from genprior.evaluation.plan import Plan, not_suited, outside_training
    from genprior.evaluation.reference_images import collection_name, open_reference_images
    from genprior.evaluation.runner import run
    from genprior.evaluation.tuning import tuned
    from genprior.priors.nets.compile import compile_networks

    if exemplar is not None and not set(FROM_EXEMPLAR) & set(priors.split(",")):
        raise click.UsageError(f"--exemplar needs --prior {' or '.join(FROM_EXEMPLAR)}")
    settings["steps"] = None if settings["steps"] == "auto" else settings["steps"]
    chosen = [_task(task, crop, resize, max_pixels) for task in tasks]
    models = _load_priors(priors, prior_settings, exemplar, max_pixels)
    methods = _methods(models, solvers, baselines, settings["steps"])
    if settings["compile"]:
        for model in {method.model for method in methods} - {None}:
            compile_networks(model)
    with joined() as ranks, Progress(quiet or not ranks.first, unit="result") as progress:
        references, tuning = ranks.local_rank_first(
            lambda: (
                list(enumerate(open_reference_images(data, max_pixels)))[::every],
                _evenly_spaced(open_reference_images(tune, max_pixels, held_out=False), tune_count)
                if tune
                else None,
            )
        )
        digests = {reference.digest() for reference in tuning or ()}
        both = sum(reference.digest() in digests for _, reference in references) if digests else 0
        if both:
            raise click.UsageError(
                f"--tune {tune}: {both} of its images are also evaluated: choose other images"
            )
        settings["dtype"] = _dtype(settings, ranks)
        tuned_on = f"{len(tuning)} images of {collection_name(tune)}" if tune else None
        note = {"tuned on": tuned_on, "exemplar": exemplar and exemplar.name,
                **_recorded(prior_settings)}
        plan = Plan(references, chosen, methods, settings=note, **settings)
        unsuited = not_suited(plan)
        for method in plan.methods:
            if all((task.text, method.name) in unsuited for task in chosen):
                progress.write(f"{method.name} supports none of the tasks: left out", err=True)
        foreign = outside_training(plan)
        for task, name in foreign:
            progress.write(f"{name} was trained for another task than {task}", err=True)
        if ranks.first:
            _prepare_folder(data, out, overwrite)
        ranks.wait()
        if tune:
            if ranks.first:
                tuned(plan, tuning, out,
                      lambda name: progress.write(f"tuning {name}", err=True))
            ranks.wait()
            plan = tuned(plan, tuning, out)
        records = run(plan, out, ranks, progress.update)
        if ranks.first:
            notes = notes_of(collection_name(data), plan, unsuited, tuned_on, records, foreign)
            texts = _write(out, records, plan.samples, notes)
            failures = {r["method"]: r["failed"] for r in records if "failed" in r}
            for name, reason in failures.items():
                progress.write(
                    f"{name} failed on the images that the report lists: {reason}", err=True
                )
        all_failed = bool(records) and all("failed" in record for record in records)
        all_failed = ranks.broadcast_object(all_failed)
    if ranks.first and (as_json or not quiet):
        click.echo(texts["report.json" if as_json else "table"])
        if not as_json:
            written = [name for name in REPORT if (out / name).exists()]
            click.echo(f"{out / written[0]} {' '.join(written[1:])}")
    if all_failed and ranks.first:
        raise SomeFailed("every restoration failed")
    fail_silently(all_failed)


def _dtype(settings: dict[str, Any], ranks: Any) -> str:
    """Returns the precision of the networks, which the results and the report name."""
    import torch

    from genprior.core.devices import pick_device, pick_dtype

    device = pick_device(ranks.device(settings["device"]), torch.empty(0))
    return pick_dtype(settings["dtype"], device)


def _task(task: TaskText, crop: int | None, resize: int | None, max_pixels: int) -> Any:
    from genprior.evaluation.plan import Task

    crop = task.crop or crop
    return Task(task.text, task.kind, task.settings, task.noise, crop, max_pixels, resize)


def _load_priors(
    priors: str, settings: dict[str, Any], exemplar: Path | None, max_pixels: int
) -> list[tuple[str, Any, str | None]]:
    """Returns name, model and checksum of every prior; only latent diffusion has settings."""
    from genprior.evaluation.plan import load_method_prior
    from genprior.priors.external import is_latent_diffusion

    names = [name for name in priors.split(",") if name and name != "none"]
    latent = {name for name in names if settings and is_latent_diffusion(name)}
    if settings and not latent:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in settings)
        raise click.UsageError(
            f"{given} needs --prior with a folder of latent diffusion; {priors} has none"
        )
    told = {name: settings if name in latent else {} for name in names}
    return [(name, *load_method_prior(name, exemplar, max_pixels, **told[name]))
            for name in names]


def _recorded(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of the priors as the results keep them, files by their checksums."""
    import json

    from genprior.core.checksums import file_digest

    paths = {name: Path(settings[name]) for name in ("lora", "control", "control_image")
             if name in settings}
    files = {name: sorted(filter(Path.is_file, path.iterdir())) if path.is_dir() else [path]
             for name, path in paths.items()}
    sums = {name: " ".join(map(file_digest, some)) for name, some in files.items()}
    settings = {**settings, **sums}
    return {"prior settings": json.dumps(settings)} if settings else {}


def _methods(
    loaded: list[tuple[str, Any, str | None]], solvers: tuple[MethodText, ...],
    baselines: tuple[MethodText, ...], steps: int | None,
) -> list:
    """Returns every prior with every solver that it supports, then the baselines."""
    from genprior.api.factory import make_baseline
    from genprior.evaluation.plan import Method
    from genprior.priors.base import Denoiser

    methods = []
    chosen = {text.text: _solver(text, steps) for text in solvers}
    for (name, model, sha256), text in product(loaded, solvers):
        if _supports(model, text.name):
            title = f"{name} {text.text}"
            methods.append(Method(title, chosen[text.text], name, model, sha256))
    for name, *_ in loaded:
        if not any(method.prior == name for method in methods):
            raise click.UsageError(
                f"none of the solvers works with --prior {name}: add --solver auto"
            )
    for text in solvers if loaded else ():
        if not any(_supports(model, text.name) for _, model, _ in loaded):
            raise click.UsageError(
                f"--solver {text.text} works with none of the priors: leave it out"
            )
    for text in baselines:
        solver = make_baseline(text.name, **text.settings)
        if solver.needs is not Denoiser:
            methods.append(Method(text.text, solver, typed=tuple(text.settings)))
            continue
        denoisers = [entry for entry in loaded if isinstance(entry[1], Denoiser)]
        if not denoisers:
            raise click.UsageError(f"--baseline {text.text} needs a --prior that is a denoiser")
        for name, model, sha256 in denoisers:
            title = text.text if len(denoisers) == 1 else f"{text.text} ({name})"
            typed = tuple(text.settings)
            methods.append(Method(title, solver, name, model, sha256, typed=typed))
    if not methods:
        raise click.UsageError("there is nothing to evaluate: give --prior or --baseline")
    return methods


def _solver(text: MethodText, steps: int | None) -> Any:
    """Returns the name of a solver, or the solver itself if the text has settings.

    `steps` is the value of --steps; a setting `steps` in the text takes precedence.
    """
    from dataclasses import fields

    from genprior.api.factory import make_solver

    if not text.settings:
        return text.name
    solver = make_solver(text.name, **text.settings)
    if steps is None or "steps" not in {field.name for field in fields(solver)}:
        return solver
    return make_solver(text.name, **{"steps": steps, **text.settings})


def _supports(model: Any, solver: str) -> bool:
    """Returns whether a prior has the ability that a solver needs.

    A prior that is estimated from each image separately has no model here; it is Gaussian.
    """
    from genprior.priors.base import Gaussian
    from genprior.registry import lookup

    if solver == "auto":
        return True
    needs = lookup(SOLVERS, solver, "solver").needs
    return issubclass(Gaussian, needs) if model is None else isinstance(model, needs)


def _evenly_spaced(references: list, count: int) -> list:
    count = min(count, len(references))
    return [references[k * len(references) // count] for k in range(count)]


def _prepare_folder(data: Path, out: Path, overwrite: bool) -> None:
    """Checks that no other program wrote the result files, and deletes them if `overwrite`."""
    from genprior.api.files.paths import check_folder, check_name
    from genprior.core.atomic_files import sweep
    from genprior.evaluation.pictures import PICTURES, picture_files
    from genprior.evaluation.results_store import KEYS, SETTINGS, Result, ResultsStore, holds
    from genprior.evaluation.tuning import TUNING

    check_folder(out / SETTINGS)
    check_name(out / SETTINGS)
    if out.exists() and data.exists() and out.samefile(data):
        raise click.UsageError(f"-o {out} holds the images: choose another -o")
    reports = [out / name for name in REPORT if os.path.lexists(out / name)]
    for path in reports:
        if not path.is_file():
            raise click.UsageError(f"{path} is not a regular file: remove it")
    is_evaluation = holds(out / SETTINGS, ("tasks", "methods", "images"))
    foreign = [path for path in (out / SETTINGS, *reports) if path.exists() and not is_evaluation]
    tuning = out / TUNING
    foreign += [tuning] if tuning.exists() and not holds(tuning, ("found", "images")) else []
    if foreign:
        raise click.UsageError(
            f"{foreign[0]} was not written by genprior evaluate: choose another -o"
        )
    for folder in (out, out / PICTURES):
        sweep(folder)
    if overwrite:
        tuning.unlink(missing_ok=True)
    if overwrite and is_evaluation:
        ResultsStore(out, KEYS, Result).clear((*reports, *picture_files(out)))
    elif is_evaluation:
        ResultsStore(out, KEYS, Result).read()  # damaged results are found before any work


def _write(out: Path, records: list, samples: int, notes: dict[str, str]) -> dict[str, str]:
    from genprior.core.atomic_files import write_atomic
    from genprior.evaluation.contact_sheet import contact_sheet
    from genprior.evaluation.reliability import reliability
    from genprior.evaluation.report import as_csv, as_json, markdown, table
    from genprior.evaluation.summary import summarise

    rows = summarise(records)
    texts = {
        "report.md": markdown(rows, samples, notes),
        "report.json": as_json(rows, samples, notes),
        "report.csv": as_csv(rows),
    }
    for name, text in texts.items():
        data = text.encode(errors="backslashreplace")  # file names may hold any bytes
        write_atomic(out / name, lambda file, data=data: file.write(data))
    contact_sheet(records, out, out / "contact.png")
    reliability(records, out / "reliability.png")
    return {**texts, "table": table(rows)}
