"""PSNR against network evaluations, from which the default numbers of evaluations were chosen.

    python benchmarks/steps.py TRAIN -o train.jsonl          # curves
    python benchmarks/steps.py TEST -o test.jsonl --defaults # the chosen settings, beside the old
    python benchmarks/steps.py --report train.jsonl test.jsonl

Centre crops of the photos are measured and restored by `hqs` and `posterior-mean`. The same
command resumes an interrupted run. `--report` writes `results/steps.{md,json,png}`. The settings
of `genprior.inverse.plug_and_play` are chosen on the photos of TRAIN only.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

import genprior
from genprior.core.metrics import psnr
from genprior.inverse.base import Solver
from genprior.inverse.plug_and_play.hqs import HQS
from genprior.inverse.plug_and_play.posterior_mean import PosteriorMean
from genprior.io.images import image_files, read_image
from genprior.operators.base import Operator
from genprior.operators.masks import box_hole, random_keep

RESULTS = Path(__file__).parent / "results"
COUNTS = (2, 4, 6, 8, 12, 16, 24)
# Name: side of the crop relative to --size, operator, its settings, noise level.
TASKS: dict[str, tuple[float, str, dict, float]] = {
    "denoise 25/255": (1, "denoise", {}, 25 / 255),
    "inpaint 50 %": (1, "inpaint", {"share": 0.5}, 0),
    "inpaint 90 %": (1, "inpaint", {"share": 0.9}, 0),
    "box": (1, "inpaint", {"box": 3 / 8}, 0),
    "strokes": (1, "inpaint", {"strokes": 5}, 0),
    "deblur 1.6, 0.01": (1, "deblur", {"gaussian": 1.6, "boundary": "circular"}, 0.01),
    "deblur 3, 0.02": (1, "deblur", {"gaussian": 3.0, "boundary": "circular"}, 0.02),
    "SR x2, 0.01": (1, "superres", {"factor": 2, "kernel": "gaussian", "std": 0.9,
                                    "boundary": "circular"}, 0.01),
    "SR x4, 0.01": (1, "superres", {"factor": 4, "kernel": "gaussian", "std": 1.8,
                                    "boundary": "circular"}, 0.01),
}


def operator_of(task: str, side: int) -> Operator:
    """Returns the operator of a task for square crops."""
    _, kind, settings, _ = TASKS[task]
    if kind != "inpaint":
        return genprior.make_operator(kind, **settings)
    if "share" in settings:
        keep = random_keep((1, 1, side, side), settings["share"], 0)
    elif "box" in settings:
        width = round(settings["box"] * side)
        keep = ~box_hole((1, 1, side, side), width, width).bool()
    else:  # three strokes of a pen
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        lines = (rows - columns / 2 - side / 8, rows + columns - side, columns - 3 * side / 4)
        keep = torch.stack([line.abs() * 2 > settings["strokes"] for line in lines]).all(0)
    return genprior.make_operator("inpaint", keep=keep)


def old_default(task: str) -> Solver:
    """Returns the solver with the settings that were the default for every measurement."""
    return PosteriorMean(8) if task.startswith("denoise") else HQS(24)


def candidates(task: str) -> Iterator[Solver]:
    """Yields the settings of the curve of a task."""
    if task.startswith("denoise"):
        yield from (PosteriorMean(views) for views in (1, 2, 3, 4, 8))
        return
    yield HQS(24)
    if TASKS[task][1] == "inpaint":
        yield from map(HQS, COUNTS[1:-1])
        for steps, views in ((1, 1), (2, 2), (4, 2), (8, 1), (12, 2)):
            yield HQS(steps, views=views)
        return
    for steps in COUNTS[1:-1]:
        yield HQS(steps)
        for sigma_min in (4 / 255, 6 / 255):
            yield HQS(steps, sigma_min=sigma_min)


def chosen(task: str, y: Tensor, operator: Operator, prior: object) -> dict[str, Solver]:
    """Returns the solver of every quality, and the old default."""
    method = PosteriorMean() if task.startswith("denoise") else HQS()
    found = {quality: method.suited(y, operator, prior, TASKS[task][3], quality)
             for quality in ("fast", "default", "best")}
    return {"before": old_default(task), **found}


def name_of(solver: Solver) -> str:
    """Returns the settings that are not those of the class, on one line."""
    default = asdict(type(solver)())
    settings = {k: v for k, v in asdict(solver).items() if v != default[k] or k == "steps"}
    return ", ".join(f"{k} {round(255 * v)}/255" if "sigma" in k or "max" in k else f"{k} {v}"
                     for k, v in settings.items()) or f"views {solver.nfe}"


def crop_of(file: Path, side: int) -> Tensor:
    """Returns the centre crop of a photo, (1, C, side, side)."""
    x = read_image(file).pixels
    top, left = ((length - side) // 2 for length in x.shape[-2:])
    return x[..., top : top + side, left : left + side].clone()


def measure(given: argparse.Namespace) -> None:
    """Measures all photos, tasks and settings; appends a line for each to the output."""
    prior = genprior.load_prior(given.prior)
    done = set()
    if given.output.exists():
        lines = map(json.loads, given.output.read_text().splitlines())
        done = {(r["photo"], r["task"], r["label"], r["settings"]) for r in lines}
    files = sorted(image_files(given.photos))
    files = files[:: max(1, len(files) // given.limit)][: given.limit]
    tasks = given.tasks.split(";") if given.tasks else list(TASKS)
    with given.output.open("a") as log:
        for file in files:
            for task in tasks:
                side = round(given.size * TASKS[task][0])
                x, operator = crop_of(file, side), operator_of(task, side)
                noise_std = TASKS[task][3]
                y = genprior.degrade(x, operator, noise_std)
                solvers = (chosen(task, y, operator, prior).items() if given.defaults
                           else [("", solver) for solver in candidates(task)])
                known: dict[str, float] = {}
                for label, solver in solvers:
                    settings = name_of(solver)
                    if (file.name, task, label, settings) in done:
                        continue
                    if settings not in known:
                        image = genprior.restore(y, operator, prior, solver, noise_std).image
                        known[settings] = psnr(image.clamp(0, 1), x).item()
                    log.write(json.dumps({
                        "photo": file.name, "task": task, "size": side, "label": label,
                        "settings": settings, "nfe": solver.nfe, "psnr": known[settings],
                    }) + "\n")
                    log.flush()


def rows(records: list[dict], key: str) -> list[dict]:
    """Returns the mean PSNR by task and by settings or label, over photos that have them all."""
    table = []
    for task in dict.fromkeys(r["task"] for r in records):
        here = [r for r in records if r["task"] == task]
        kinds = list(dict.fromkeys((r[key], r["settings"], r["nfe"]) for r in here))
        by_photo: dict[str, dict] = {}
        for r in here:
            by_photo.setdefault(r["photo"], {})[r[key]] = r["psnr"]
        names = {kind for kind, _, _ in kinds}
        whole = [found for found in by_photo.values() if names <= set(found)]
        for kind, settings, nfe in kinds if whole else ():
            table.append({"task": task, key: kind, "settings": settings, "nfe": nfe,
                          "photos": len(whole), "psnr": fmean(found[kind] for found in whole)})
    return table


def curves(table: list[dict], path: Path) -> None:
    """Draws PSNR minus that of the old default against the evaluations."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
    for task in dict.fromkeys(row["task"] for row in table):
        here = [row for row in table if row["task"] == task]
        most = max(row["nfe"] for row in here)
        reference = next(row["psnr"] for row in here if row["nfe"] == most)
        best = {nfe: max(row["psnr"] for row in here if row["nfe"] == nfe)
                for nfe in sorted({row["nfe"] for row in here})}
        axes.plot(list(best), [p - reference for p in best.values()], "o-", ms=3, label=task)
    axes.axhline(-0.03, color="grey", lw=0.8, ls=":")
    axes.set(xscale="log", xlabel="network evaluations", ylim=(-1.2, 1),
             ylabel="PSNR - PSNR of the old default, dB")
    axes.set_xticks([1, 2, 4, 8, 16, 24], ["1", "2", "4", "8", "16", "24"])
    axes.legend(fontsize=7, ncols=2, loc="lower right")
    figure.savefig(path, dpi=110)


def report(train: Path, test: Path) -> None:
    """Writes the tables and the picture of two runs."""
    read = [list(map(json.loads, path.read_text().splitlines())) if path.exists() else []
            for path in (train, test)]
    curve, shown = rows(read[0], "settings"), rows(read[1], "label")
    lines = [__doc__.splitlines()[0], "", "PSNR in dB, mean over photos. Training photos:", "",
             "| task | photos | evaluations | settings | PSNR | minus that of the old default |",
             "|---|---|---|---|---|---|"]
    for row in curve:
        reference = name_of(old_default(row["task"]))
        old = next(r["psnr"] for r in curve
                   if r["task"] == row["task"] and r["settings"] == reference)
        lines.append(f"| {row['task']} | {row['photos']} | {row['nfe']} | {row['settings']} "
                     f"| {row['psnr']:.2f} | {row['psnr'] - old:+.2f} |")
    lines += ["", "Test photos, for reporting only:", "",
              "| task | photos | quality | evaluations | settings | PSNR | minus before |",
              "|---|---|---|---|---|---|---|"]
    for row in shown:
        old = next(r["psnr"] for r in shown
                   if r["task"] == row["task"] and r["label"] == "before")
        lines.append(f"| {row['task']} | {row['photos']} | {row['label']} | {row['nfe']} "
                     f"| {row['settings']} | {row['psnr']:.2f} | {row['psnr'] - old:+.2f} |")
    sizes = [sorted({r["size"] for r in records}) for records in read]
    lines += ["", f"Sides of the crops in pixels: training {sizes[0]}, test {sizes[1]}."]
    (RESULTS / "steps.md").write_text("\n".join(lines) + "\n")
    text = json.dumps({"train": curve, "test": shown}, indent=1)
    (RESULTS / "steps.json").write_text(text + "\n")
    curves(curve, RESULTS / "steps.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--defaults", action="store_true")
    parser.add_argument("--report", type=Path, nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--prior", default="ddpm")
    parser.add_argument("--tasks", default="", help="names of tasks, with semicolons")
    given = parser.parse_args()
    if given.report:
        report(*given.report)
    else:
        measure(given)


if __name__ == "__main__":
    main()
