"""Eight restoration tasks on the 68 test photos, with genprior and the classical baselines.

    python benchmarks/photos.py TEST -o RUN [options of genprior evaluate]

TEST is a folder with the CBSD68 photos; their 256x256 centre crops are evaluated. The baselines
have their default settings, which were chosen on other photos; `--tune TRAIN` tunes them on the
images TRAIN, for each task. The script runs `genprior evaluate` with the tasks below. The same
command resumes an interrupted run, and `torchrun --nproc-per-node N benchmarks/photos.py ...`
distributes the work. It copies the report to `results/natural68.*`.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from genprior.cli import main

RESULTS = Path(__file__).parent / "results"
TASKS = (
    "denoise:noise=25/255",
    "inpaint:random=0.5",
    "inpaint:random=0.9",
    "inpaint:box=48x48",
    "deblur:gaussian=1.6,boundary=circular,noise=0.01",
    "deblur:gaussian=3,boundary=circular,noise=0.02",
    "superres:factor=2,filter=gaussian,std=0.9,boundary=circular,noise=0.01",
    "superres:factor=4,filter=gaussian,std=1.8,boundary=circular,noise=0.01",
)
BASELINES = "measurement,biharmonic,tv,wiener,richardson-lucy,bicubic,lanczos"
KEPT = {"report.md": "md", "report.json": "json", "results.jsonl": "jsonl", "contact.png": "png"}


def run(
    name: str, fixed: list[str], words: list[str], tasks: Sequence[str] = TASKS, crop: int = 256
) -> None:
    """Runs `genprior evaluate` and copies the report to `RESULTS`.

    Arguments:
        name: Stem of the copied files.
        fixed: Options of `genprior evaluate`; options in `words` replace them.
        words: Command line of the script; its tasks, if any, replace `tasks`.
        tasks: Tasks to evaluate.
        crop: Side of the centre crops, pixels.
    """
    texts = [word for task in tasks for word in ("--task", task)] * ("--task" not in words)
    settings = [*texts, "--crop", str(crop), *fixed, *words]
    code = main(["evaluate", *settings], standalone_mode=False)
    if code:
        sys.exit(code)
    out = Path(words[words.index("-o") + 1])
    if os.environ.get("RANK", "0") == "0":
        for file, ending in KEPT.items():
            if (out / file).exists():  # --show 0 writes no contact sheet
                shutil.copy(out / file, RESULTS / f"{name}.{ending}")


if __name__ == "__main__":
    many = ["--steps", "24", "--quality", "best"]  # fewer evaluations: steps.py
    run("natural68", ["--baseline", BASELINES, "--show", "2", *many], sys.argv[1:])
