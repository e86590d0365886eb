"""Constructor arguments of priors from --set NAME=VALUE."""

import inspect
from typing import Any

import click

from genprior.registry import PRIORS, lookup


def constructor_arguments(prior: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """Returns the arguments of a prior's class from the values of --set.

    Raises:
        UsageError: A text is not NAME=VALUE, or the class has no such argument.
    """
    parameters = inspect.signature(lookup(PRIORS, prior, "prior")).parameters
    return parse_arguments(texts, list(parameters))


def parse_arguments(texts: tuple[str, ...], known: list[str]) -> dict[str, Any]:
    """Returns the arguments in texts NAME=VALUE; a value that is not JSON is a string.

    Raises:
        UsageError: A text is not NAME=VALUE, or its name is not among the known ones.
    """
    from genprior.core.records import parse_json

    parsed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--set {text}: write NAME=VALUE")
        if name not in known:
            raise click.UsageError(f"--set {text}: choose one of {', '.join(known)}")
        try:
            parsed[name] = parse_json(value, Any)
        except ValueError:
            parsed[name] = value
    return parsed
