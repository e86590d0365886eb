"""Output of the restoring commands: one line per file, or JSON records."""

import json
import time
from typing import TYPE_CHECKING, Any

import click

from genprior.commands.progress import Progress
from genprior.commands.standard_streams import echo_error
from genprior.core.errors import SomeFailed, exit_code

if TYPE_CHECKING:
    from genprior.api.files.paths import OutputPaths
    from genprior.core.distributed import Ranks


class Report:
    """Output of a command that restores files, and the count of failures.

    Arguments:
        count: Number of files.
        as_json: Print JSON records on standard output, and nothing else there.
        quiet: Show no progress bar and print only errors.
        to_stdout: Standard output holds the restored image, so lines go to standard error.
    """

    def __init__(self, count: int, as_json: bool, quiet: bool, to_stdout: bool) -> None:
        self.count, self.as_json = count, as_json
        self.to_stdout = to_stdout
        self.progress = Progress(quiet or as_json)
        self.started = time.perf_counter()
        self.records: list[dict[str, Any]] = []
        self.failures = 0

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.__exit__(*error)

    def update(self, done: int, total: int) -> None:
        """Moves the progress bar; arguments: network evaluations of all files."""
        number = f"file {min(len(self.records) + 1, self.count)} of {self.count}"
        self.progress.update(done, total, number if self.count > 1 else "")

    def restored(self, record: dict[str, Any]) -> None:
        """Reports a restored file and its warnings."""
        self.records.append(record)
        self.progress.write(_line(record), err=self.to_stdout)
        if "resampled" in record:
            self.progress.write(f"note: {record['output']}: {record['resampled']}", err=True)
        for warning in record["warnings"]:
            self.progress.write(f"warning: {record['output']}: {warning}", err=True)

    def failed(self, target: "OutputPaths", error: Exception) -> None:
        """Reports a file that could not be restored."""
        self.failures += 1
        text = " ".join(str(error).split()) or type(error).__name__
        source = str(target.source)
        text = text if source in text else f"{source}: {text}"
        self.records.append({"input": source, "error": text, "exit_code": exit_code(error)})
        self.progress.clear()
        echo_error(f"error: {text}")

    def skipped(self, targets: "list[OutputPaths]") -> None:
        """Reports files that an earlier run restored."""
        for target in targets:
            self.records.append(
                {"input": str(target.source), "output": str(target.output), "skipped": True}
            )
            self.progress.write(f"{target.source} -> {target.output} [exists]")

    def gather(self, ranks: "Ranks", targets: "list[OutputPaths]") -> None:
        """Collects the records of all processes in the order of the files; counts the errors.

        If one process returned an error and others did not, nodes would wait for each other.
        """
        if ranks.world > 1:
            order = {str(target.source): k for k, target in enumerate(targets)}
            records = [record for share in ranks.gather(self.records) for record in share]
            self.records = sorted(records, key=lambda record: order[record["input"]])
            self.failures = ranks.broadcast_object(sum("error" in record for record in records))

    def finish(self, first: bool) -> None:
        """Prints the JSON records or totals, and exits with an error code if the only file failed.

        Arguments:
            first: Whether this is the first process; others only exit, with a code.

        Raises:
            SomeFailed: At least one of several files could not be restored.
        """
        if not first:
            fail_silently(self.failures > 0)
            return
        if self.as_json:
            click.echo(json.dumps(self.records, indent=1, allow_nan=False))
        elif self.count > 1:
            seconds = time.perf_counter() - self.started
            self.progress.write(_totals(self.records, seconds), err=self.to_stdout)
        if self.count == self.failures == 1:
            click.get_current_context().exit(self.records[0]["exit_code"])
        if self.failures:
            raise SomeFailed(f"{self.failures} of {self.count} files failed")


def fail_silently(failed: bool) -> None:
    """Exits with the code of `SomeFailed`, of which the first process tells."""
    if failed:
        click.get_current_context().exit(exit_code(SomeFailed()))


def _line(record: dict[str, Any]) -> str:
    parts = [f"{record['input']} -> {record['output']}"]
    if record["degrade"]:
        parts.append(f"PSNR {_decibels(record['psnr'])}")
    if "ssim" in record:
        parts.append(f"SSIM {record['ssim']:.4f}")
    if "psnr_measurement" in record:
        parts.append(f"(measurement {_decibels(record['psnr_measurement'])})")
    backward = f" + {record['products']} backward" if record["products"] else ""
    estimated = " (estimated)" if record["noise_estimated"] else ""
    if record.get("noise_found"):
        estimated += f", {record['noise_found']}"
    noise = record["noise"] if isinstance(record["noise"], str) else f"{record['noise']:.4g}"
    if "blur_found" in record:
        parts.append(f"[blur: {record['blur_found']}]")
    size = record.get("effective_sample_size")
    weights = "" if size is None else f"effective sample size {size:.1f}, "
    parts.append(
        f"[{record['solver']}, noise {noise}{estimated}, {weights}"
        f"{record['nfe']} NFE{backward}, {record['seconds']:.1f} s]"
    )
    return " ".join(parts)


def _totals(records: list[dict[str, Any]], seconds: float) -> str:
    """Returns a line with the counts of all files, and the evaluations and their rate."""
    failed = sum("error" in record for record in records)
    skipped = sum("skipped" in record for record in records)
    made = [record for record in records if "nfe" in record]
    evaluations = sum(record["nfe"] * record["samples"] for record in made)
    parts = [f"{len(made)} restored"]
    parts += [f"{skipped} existed"] * bool(skipped) + [f"{failed} failed"] * bool(failed)
    return (f"{len(records)} files: {', '.join(parts)}; {evaluations} NFE in {seconds:.1f} s "
            f"({evaluations / max(seconds, 1e-9):.1f} NFE/s)")


def _decibels(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.2f} dB"
