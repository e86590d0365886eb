"""Training log: one JSON line every 20 steps, and optionally TensorBoard."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from genprior.core.atomic_files import write_atomic
from genprior.core.distributed import Ranks
from genprior.core.errors import CheckpointError, SettingError
from genprior.core.records import parse_json, read_regular

LOG = "log.jsonl"
EVERY = 20


class _Line(msgspec.Struct):
    """Line of the log, of which only the step is read back."""

    step: int


class TrainingLog:
    """Log of the mean losses of a training, which checks that they are finite.

    Reading a number back from a GPU synchronises with it, so this is done only every 20 steps and
    at checkpoints.

    Arguments:
        out: Folder of the run.
        ranks: Processes whose losses are averaged; the first one writes.
        tensorboard: Whether to write for TensorBoard, too.

    Raises:
        SettingError: `tensorboard` is set, but TensorBoard is not installed.
    """

    def __init__(self, out: Path, ranks: Ranks, tensorboard: bool = False) -> None:
        self.path, self.ranks = out / LOG, ranks
        self.pending: list[tuple[int, dict[str, Tensor]]] = []
        self.window: list[dict[str, float]] = []
        self.latest = float("nan")
        self.writer = _tensorboard(out) if tensorboard and ranks.first else None

    def begin(self) -> None:
        """Deletes the log of a run that was killed before its first checkpoint."""
        if self.ranks.first:
            self.path.unlink(missing_ok=True)

    def resume(self, step: int, window: Sequence[Mapping[str, float]]) -> None:
        """Deletes the lines after a step, and continues with losses that were not yet written.

        Raises:
            CheckpointError: The log is a link, is not a regular file, or has a damaged line.
        """
        self.window = [dict(losses) for losses in window]
        if self.ranks.first and os.path.lexists(self.path):
            lines = self._read().split(b"\n")[:-1]
            kept = [line for number, line in enumerate(lines, 1)
                    if self._step(line, number) <= step]
            data = b"".join(line + b"\n" for line in kept)
            write_atomic(self.path, lambda file: file.write(data))

    def _read(self) -> bytes:
        if self.path.is_symlink():  # writing would go to a file elsewhere
            raise CheckpointError(f"{self.path} is a link: replace it by the file, or remove it")
        try:
            return read_regular(self.path)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} cannot be read ({error}): move it away, then resume"
            ) from None

    def _step(self, line: bytes, number: int) -> int:
        try:
            return parse_json(line, _Line).step
        except ValueError as error:
            raise CheckpointError(
                f"{self.path}: line {number} is damaged ({error}): remove the line, then resume"
            ) from None

    def add(self, step: int, losses: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Records the losses of a step; every 20 steps writes their means, with `facts`.

        Raises:
            FloatingPointError: A loss is not finite; the message names the step.
        """
        self.pending.append((step, dict(losses)))
        on_cpu = next(iter(losses.values())).device.type == "cpu" and self.ranks.world == 1
        if on_cpu or step % EVERY == 0:
            self.read()
        if step % EVERY == 0:
            groups = self.window[0]
            means = {g: sum(line[g] for line in self.window) / len(self.window) for g in groups}
            self._write({"step": step, **facts, **means})
            self.window = []

    def read(self) -> None:
        """Reads the recorded losses back from the device."""
        if not self.pending:
            return
        groups = list(self.pending[0][1])
        table = torch.stack([torch.stack([line[g].float() for g in groups])
                             for _, line in self.pending])
        self.ranks.average([table])
        for (step, _), row in zip(self.pending, table.tolist(), strict=True):
            values = dict(zip(groups, row, strict=True))
            if not all(map(math.isfinite, row)):
                raise FloatingPointError(f"the loss is {values} at step {step}: lower the lr")
            self.window.append(values)
            self.latest = sum(row)
        self.pending = []

    def note(self, step: int, facts: Mapping[str, float]) -> None:
        """Writes a separate line, such as a validation loss."""
        self._write({"step": step, **facts})

    def close(self) -> None:
        """Closes the TensorBoard file."""
        if self.writer is not None:
            self.writer.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        if not self.ranks.first:
            return
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        if self.writer is not None:
            for name, value in line.items():
                if name != "step":
                    self.writer.add_scalar(name, value, line["step"])


def _tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SettingError(
            'TensorBoard is not installed: pip install "genprior[tensorboard]", or omit '
            "--tensorboard"
        ) from None
    return SummaryWriter(str(out / "tensorboard"))
