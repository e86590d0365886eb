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
        UsageError: A text is not NAME=VALUE, its name is not among the known ones, or its value
            is a list or dictionary that cannot be read.
    """

    parsed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--set {text}: write NAME=VALUE")
        if name not in known:
            raise click.UsageError(f"--set {text}: choose one of {', '.join(known)}")
        try:
            parsed[name] = parse_value(value)
        except ValueError as error:
            raise click.UsageError(f"--set {name}: {error}: write its value as JSON") from None
    return parsed


def parse_value(text: str) -> Any:
    """Returns the JSON value of a text, or the text itself if it is a word.

    Raises:
        ValueError: The text begins like a list or a dictionary, but is none.
    """
    from genprior.core.records import parse_json

    try:
        return parse_json(text, object)
    except ValueError:
        if text.lstrip()[:1] in ("[", "{"):
            raise
        return text
