"""Posterior samplers on the test photos: ours beside deepinv's, same network, same measurements.

    python benchmarks/photo_samplers.py TEST -o RUN [options of genprior evaluate]

The eight tasks of `photos.py`. Of each method: PSNR and SSIM of the mean of 16 samples, how often
the truth lies in their central 90 % interval, evaluations and seconds; `hqs` and `red-diff` give
one picture. deepinv's DPS is there with three weights. With `--samples 1` single answers are
compared. A GPU is wanted: on a CPU take `--every 8 --crop 64 --dtype bfloat16`. At the end the
report goes into `results/photo_samplers.*`.
"""

import sys

from photos import run

SOLVERS = (
    "hqs,hqs:steps=100,red-diff:steps=100,moment-matched,mmps:steps=25,jfps:steps=100,"
    "tmpd:steps=33,pigdm:steps=50,ddrm:steps=100,diffpir:steps=33,diffpir:steps=100,dps:steps=100"
)
PEERS = (
    "deepinv:dps:num_steps=101:weight=1,deepinv:dps:num_steps=101:weight=10,"
    "deepinv:dps:num_steps=101:weight=100,deepinv:diffpir:max_iter=33,"
    "deepinv:diffpir:max_iter=100,deepinv:ddrm,deepinv:pigdm:num_steps=50,"
    "deepinv:pigdm:num_steps=100,deepinv:mmps:num_steps=20"
)

if __name__ == "__main__":
    fixed = ["--solver", SOLVERS, "--baseline", PEERS, "--samples", "16", "--show", "1"]
    run("photo_samplers", fixed, sys.argv[1:])
