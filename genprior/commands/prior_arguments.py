"""Arguments of priors given as --set NAME=VALUE."""

import inspect
import json
from typing import Any

import click

from genprior.registry import PRIORS, lookup


def constructor_arguments(prior: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """Arguments of a prior's class from what --set was given."""
    return _arguments(texts, list(inspect.signature(lookup(PRIORS, prior, "prior")).parameters))


def _arguments(texts: tuple[str, ...], known: list[str]) -> dict[str, Any]:
    parsed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--set {text}: write NAME=VALUE")
        if name not in known:
            raise click.UsageError(f"--set {text}: choose one of {', '.join(known)}")
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed
