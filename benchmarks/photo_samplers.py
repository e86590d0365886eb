"""Solvers of genprior and deepinv on the test photos, with the same network and measurements.

    python benchmarks/photo_samplers.py points TEST -o RUN [options of genprior evaluate]
    python benchmarks/photo_samplers.py samples TEST -o RUN [options of genprior evaluate]
    python benchmarks/photo_samplers.py solvers TEST -o RUN [options of genprior evaluate]
    python benchmarks/photo_samplers.py large TEST -o RUN [options of genprior evaluate]
    python benchmarks/photo_samplers.py large_samples TEST -o RUN [options of genprior evaluate]

The tasks are the eight of `photos.py`, on 48x48 centre crops with a hole of 12x12.

points         compares point estimates.
samples        compares 19 posterior samples of the default sampler and of the peers: PSNR and SSIM
               of their mean, and how often the reference lies in their central 90 % interval. For
               19 exact samples that is 90 times out of 100.
solvers        does the same for all samplers; `red-diff` gives a point estimate.
large          is `points` on the crops of `photos.py`.
large_samples  is `samples` on the crops of `photos.py`.

`--tune TRAIN` tunes the weight of DPS of deepinv on the images TRAIN, for each task. The script is
made for a GPU, with `--batch 68 --dtype bfloat16 --compile`; on a CPU use `--every 17`. It copies
the report to `results/photo_points.*`, `results/photo_samples.*` and so on.
"""

import sys

from photos import TASKS, run

from genprior.inverse.execution.executor import MIXED

POINTS = "auto,hqs:steps=33,hqs:steps=100,red-diff:steps=100"
SOLVERS = (
    "red-diff:steps=100,moment-matched,mmps:steps=25,jfps,tmpd:steps=33,pigdm:steps=50,"
    "ddrm:steps=100,diffpir,dps:steps=100,daps:steps=20,pnp-dm:steps=20"
)
PEERS = (
    "deepinv:ddrm,deepinv:diffpir:max_iter=100,deepinv:pigdm:num_steps=100,"
    "deepinv:dps:num_steps=101"
)
CROP = 48
SMALL = tuple(task.replace("box=48x48", "box=12x12") for task in TASKS)
RUNS = {
    "points": (POINTS, "1", SMALL, CROP),
    "samples": ("moment-matched", "19", SMALL, CROP),
    "solvers": (SOLVERS, "19", SMALL, CROP),
    "large": (POINTS, "1", TASKS, 256),
    "large_samples": ("moment-matched", "19", TASKS, 256),
}

if __name__ == "__main__":
    if sys.argv[1:2] not in [[name] for name in RUNS]:
        sys.exit(__doc__)
    # A large batch of small images is faster, for the solvers of both libraries, even on a CPU.
    MIXED["cpu"] = True
    solvers, samples, tasks, crop = RUNS[sys.argv[1]]
    fixed = ["--solver", solvers, "--baseline", PEERS, "--samples", samples, "--show", "1"]
    run(f"photo_{sys.argv[1]}", fixed, sys.argv[2:], tasks, crop)
