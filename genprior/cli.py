"""Command-line entry point: runs a command and reports an error as one line and an exit code.

Only this module and `commands` parse arguments, print text and exit the process.
"""

import codecs
import os
import sys
import warnings
from typing import Any, TextIO

import click

from genprior import __version__
from genprior.commands.calibrate import calibrate
from genprior.commands.completion import completion
from genprior.commands.degrade import degrade
from genprior.commands.doctor import doctor
from genprior.commands.evaluate import evaluate
from genprior.commands.import_weights import import_
from genprior.commands.priors import priors
from genprior.commands.restore import (
    colorize,
    compressed_sensing,
    deblur,
    dejpeg,
    demosaic,
    denoise,
    hdr,
    inpaint,
    superres,
)
from genprior.commands.sample import sample
from genprior.commands.serve import serve
from genprior.commands.solvers import solvers
from genprior.commands.standard_streams import echo_error, reserve_standard_streams
from genprior.commands.texture import texture
from genprior.commands.train import train
from genprior.core.errors import (
    EXIT_PIPE,
    EXIT_USAGE,
    OUT_OF_MEMORY,
    PrecisionWarning,
    RestorationWarning,
    SomeFailed,
    exit_code,
    memory_ran_out,
)

COMMANDS = (
    inpaint, deblur, superres, denoise, dejpeg, hdr, colorize, demosaic, compressed_sensing,
    degrade, sample, texture, train, evaluate, calibrate, priors, solvers, import_, doctor,
    completion, serve,
)
# Errors that the user can act on. Any other error is a bug and shows its traceback.
REPORTED = (
    click.UsageError, ValueError, TypeError, OSError, ArithmeticError, MemoryError,
    KeyboardInterrupt, SomeFailed,
)
# Other words for a command, as people type them; without hyphens.
WORDS = {
    "inpaint": ("inpainting", "remove", "fill", "fillin", "erase", "heal", "complete", "outpaint"),
    "deblur": ("deblurring", "unblur", "sharpen", "deconvolve", "deconvolution"),
    "superres": ("superresolution", "superresolve", "sr", "upscale", "upscaling", "upsample",
                 "upsampling", "enlarge", "enlargement", "zoom", "magnify", "resize"),
    "denoise": ("denoising", "clean"),
    "dejpeg": ("jpeg", "jpg", "decompress", "deblock", "deblocking", "unjpeg", "artifacts"),
    "colorize": ("colorise", "colorization", "colorisation", "colourize", "colourise", "recolor"),
    "demosaic": ("demosaicing", "demosaick", "debayer", "bayer", "raw"),
    "compressed-sensing": ("compressedsensing", "compressivesensing", "sensing", "cs"),
    "hdr": ("unclip", "declip", "highlights", "overexposure", "overexposed", "exposure"),
    "degrade": ("blur", "simulate", "measure", "downscale", "downsample"),
    "sample": ("sampling", "generate", "draw"),
    "texture": ("synthesise", "synthesize"),
    "train": ("training", "fit", "learn"),
    "evaluate": ("evaluation", "eval", "benchmark", "compare", "test"),
    "calibrate": ("calibration", "conformal"),
    "priors": ("prior", "models", "model", "weights"),
    "solvers": ("solver", "methods", "samplers"),
    "import": ("convert", "load"),
    "doctor": ("check", "diagnose", "info", "status"),
}
# Error handlers for characters that an encoding lacks: Python's defaults, and the one used here.
STANDARD_ERRORS, NAME_ERRORS = ("strict", "surrogateescape", "backslashreplace"), "genprior-names"


def _encode_any_name(error: UnicodeError) -> tuple[bytes | str, int]:
    """Keeps bytes that are not text; escapes characters that the encoding lacks."""
    one = UnicodeEncodeError(
        error.encoding, error.object, error.start, error.start + 1, error.reason
    )
    try:
        return codecs.lookup_error("surrogateescape")(one)
    except UnicodeEncodeError:
        return codecs.backslashreplace_errors(one)


codecs.register_error(NAME_ERRORS, _encode_any_name)


class Commands(click.Group):
    """Command group that reports errors as one line and an exit code."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0].lower().replace("-", "").replace("_", "")
        meant = next((name for name, words in WORDS.items() if word in words), None)
        if meant is not None and args[0] not in self.commands:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {meant!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        reserve_standard_streams()
        # the commands print the warnings of a restoration themselves, with the names of options
        quiet = warnings.catch_warnings(action="ignore", category=RestorationWarning)
        ctx.with_resource(quiet)
        for stream in (sys.stdout, sys.stderr):  # file names may contain any bytes
            if getattr(stream, "errors", None) in STANDARD_ERRORS:
                stream.reconfigure(errors=NAME_ERRORS)
        try:
            with warnings.catch_warnings():
                _print_warnings_as_lines()
                return super().invoke(ctx)
        except (click.exceptions.NoArgsIsHelpError, click.exceptions.Exit, click.Abort):
            raise
        except (*REPORTED, RuntimeError) as caught:
            error = caught
            if memory_ran_out(error):
                error = MemoryError(OUT_OF_MEMORY)
            if os.environ.get("GENPRIOR_DEBUG") or not isinstance(error, REPORTED):
                raise
            if isinstance(error, BrokenPipeError):  # the reader closed the pipe
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                ctx.exit(EXIT_PIPE)
            echo_error(f"genprior: {_one_line(error)}")
            ctx.exit(EXIT_USAGE if isinstance(error, click.UsageError) else exit_code(error))


def _print_warnings_as_lines() -> None:
    """Prints each warning of this package once, in one line, until the filters are restored."""
    show, shown = warnings.showwarning, set()
    warnings.simplefilter("always", PrecisionWarning)

    def show_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:
        if not issubclass(category, PrecisionWarning):
            show(message, category, filename, lineno, file, line)
        elif str(message) not in shown:
            shown.add(str(message))
            echo_error(f"warning: {message}")

    warnings.showwarning = show_line


def _one_line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "genprior"
        return f"{' '.join(error.format_message().split())} (see {command} --help)"
    if isinstance(error, OSError) and error.filename:
        return " ".join(f"{error.filename}: {error.strerror}".splitlines())
    return " ".join(str(error).split()) or type(error).__name__


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="genprior")
def main() -> None:
    """Restore images with generative priors.

    Masks are white where pixels are to be filled in. Noise levels are in units of [0, 1].
    Set GENPRIOR_DEBUG=1 to see the traceback of an error.
    """


for command in COMMANDS:
    main.add_command(command)
