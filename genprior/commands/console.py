"""What a restoring command says: a line for each file, or JSON; and whether all went well."""

import json
from typing import TYPE_CHECKING, Any

import click

from genprior.commands.progress import Progress
from genprior.core.errors import SomeFailed, exit_code

if TYPE_CHECKING:
    from genprior.api.files.paths import OutputPaths
    from genprior.core.distributed import Ranks


class Report:
    """The lines of a command that restores files.

    Arguments:
        count: Number of files.
        as_json: Records on standard output, and nothing else there.
        quiet: No progress bar, and lines about errors only.
        to_stdout: Standard output is for a picture.
    """

    def __init__(self, count: int, as_json: bool, quiet: bool, to_stdout: bool) -> None:
        self.count, self.as_json = count, as_json
        self.to_stdout = to_stdout
        self.progress = Progress(quiet or as_json)
        self.records: list[dict[str, Any]] = []
        self.failures = 0

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.__exit__(*error)

    def restored(self, record: dict[str, Any]) -> None:
        """A file was restored."""
        self.records.append(record)
        self.progress.write(_line(record), err=self.to_stdout)
        for warning in record["warnings"]:
            self.progress.write(f"warning: {record['output']}: {warning}", err=True)

    def failed(self, target: "OutputPaths", error: Exception) -> None:
        """A file could not be restored."""
        self.failures += 1
        text = " ".join(str(error).split()) or type(error).__name__
        source = str(target.source)
        text = text if source in text else f"{source}: {text}"
        self.records.append({"input": source, "error": text, "exit_code": exit_code(error)})
        self.progress.clear()
        click.echo(f"error: {text}", err=True)

    def skipped(self, targets: "list[OutputPaths]") -> None:
        """Files that were restored before."""
        for target in targets:
            self.records.append(
                {"input": str(target.source), "output": str(target.output), "skipped": True}
            )
            self.progress.write(f"{target.source} -> {target.output} [exists]")

    def gather(self, ranks: "Ranks", targets: "list[OutputPaths]") -> None:
        """Brings the records of all processes together, in the order of the files."""
        if ranks.world > 1:
            order = {str(target.source): k for k, target in enumerate(targets)}
            records = [record for share in ranks.gather(self.records) for record in share]
            self.records = sorted(records, key=lambda record: order[record["input"]])
            self.failures = sum("error" in record for record in records)

    def finish(self) -> None:
        """Prints the records.

        Raises:
            SomeFailed: Not all files could be restored, and there are several.
        """
        if self.as_json:
            click.echo(json.dumps(self.records, indent=1, allow_nan=False))
        if self.count == self.failures == 1:
            click.get_current_context().exit(self.records[0]["exit_code"])
        if self.failures:
            raise SomeFailed(f"{self.failures} of {self.count} files failed")


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
    parts.append(
        f"[{record['solver']}, noise {record['noise']:.4g}{estimated}, "
        f"{record['nfe']} NFE{backward}, {record['seconds']:.1f} s]"
    )
    return " ".join(parts)


def _decibels(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.2f} dB"
