"""Distributed processes started by `torchrun`; a single process communicates nothing."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from genprior.core.errors import SettingError

TIMEOUT = timedelta(days=2)
BUCKET = 2**24  # elements per all-reduce


@dataclass(frozen=True)
class Ranks:
    """Rank of this process and collective operations (torch.distributed).

    Arguments:
        rank: Rank of this process.
        world: Number of processes (world size).
        local: Local rank: index of this process on its machine, and of its GPU.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the process that writes files and prints."""
        return self.rank == 0

    def share(self, items: Sequence) -> list:
        """Returns the items that this process works on."""
        return list(items[self.rank :: self.world])

    def device(self, name: str) -> str:
        """Returns the device name for this process: each process of a machine has its own GPU."""
        if self.world == 1 or ":" in name:
            return name
        if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
            return f"cuda:{self.local}"
        return name

    def wait(self) -> None:
        """Waits until all processes have called this (barrier)."""
        if self.world > 1:
            dist.barrier()

    def local_rank_first(self, get: Callable[[], Any]) -> Any:
        """Returns the result of a function that may download; local rank 0 calls it first."""
        first = get() if self.local == 0 else None
        self.wait()
        return first if self.local == 0 else get()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its mean over the processes."""
        if self.world == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            dist.all_reduce(flat)
            flat /= self.world
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def copy(self, tensors: Sequence[Tensor]) -> None:
        """Broadcasts the tensors of rank 0 to all processes, in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def gather(self, value: Any) -> list:
        """Returns the values of all processes in rank order on rank 0, and [] on the others."""
        if self.world == 1:
            return [value]
        values = [None] * self.world if self.first else None
        dist.gather_object(value, values)
        return values or []

    def broadcast_object(self, value: Any) -> Any:
        """Returns the value of rank 0 on every process."""
        if self.world == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]


@contextmanager
def joined() -> Iterator[Ranks]:
    """Joins the process group that `torchrun` started, and leaves it at the end of the block.

    Raises:
        SettingError: The environment variables of `torchrun` are incomplete or contradict each
            other, or the other processes cannot be reached.
    """
    ranks = _ranks_of_environment()
    if ranks.world == 1:
        yield Ranks()
        return
    gpu = torch.cuda.is_available()
    try:
        if gpu:
            torch.cuda.set_device(ranks.local)
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise SettingError(
            f"process {ranks.rank} of {ranks.world} cannot join the others "
            f"({str(error).partition(chr(10))[0]}): start all by torchrun, or unset WORLD_SIZE"
        ) from error
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _ranks_of_environment() -> Ranks:
    """Returns the ranks in the environment variables that `torchrun` sets.

    Raises:
        SettingError: A variable is missing, or its value is not possible.
    """
    world = _count("WORLD_SIZE", 1)
    if world == 1:
        return Ranks()
    ranks = Ranks(_count("RANK"), world, _count("LOCAL_RANK", 0))
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise SettingError(_remedy(f"WORLD_SIZE is {world}, but {name} is not set"))
    if world == 0 or ranks.rank >= world:
        raise SettingError(_remedy(f"RANK is {ranks.rank}, but WORLD_SIZE is {world}"))
    return ranks


def _count(name: str, default: int | None = None) -> int:
    """Returns the value of an environment variable, an integer >= 0."""
    text = os.environ.get(name, "").strip()
    if not text and default is not None:
        return default
    if not re.fullmatch("[0-9]{1,9}", text):
        state = f"is {text!r}, not an integer >= 0" if text else "is not set, but WORLD_SIZE is"
        raise SettingError(_remedy(f"the environment variable {name} {state}"))
    return int(text)


def _remedy(fault: str) -> str:
    return f"{fault}: start the command by torchrun, or unset WORLD_SIZE"


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yields groups of tensors of one dtype and device, of at most `BUCKET` elements together.

    A larger tensor is a group of its own.
    """
    kinds: dict[tuple, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for same in kinds.values():
        bucket: list[Tensor] = []
        for tensor in same:
            if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket
