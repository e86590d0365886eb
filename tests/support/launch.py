"""Commands that run in several processes, as `torchrun` starts them."""

import os
import socket
import subprocess
import sys
from typing import NamedTuple

from repository import ROOT

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


class Run(NamedTuple):
    """What the nodes returned and wrote, one after the other."""

    returncode: int
    stdout: str
    stderr: str


def on_one_node(*words: object) -> list[str]:
    """Returns the command line of two processes on one machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
            "2", "-m", "genprior", *map(str, words)]


def on_two_nodes(*words: object) -> Run:
    """Runs a command on two nodes with one process each, which meet at a port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
              "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", place,
              "-m", "genprior", *map(str, words)]
    nodes = [
        subprocess.Popen(launch, env=ONE_THREAD, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    written = [node.communicate(timeout=300) for node in nodes]
    codes = [node.returncode for node in nodes]
    return Run(max(codes, key=abs), *("".join(texts) for texts in zip(*written, strict=True)))
