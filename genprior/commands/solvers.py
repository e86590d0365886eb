"""solvers: what there is to restore with."""

import click

from genprior.registry import SOLVERS, lookup


@click.command()
def solvers() -> None:
    """List the solvers: what they are, what they cost, what they need of a prior.

    NFE counts the evaluations of the prior's network by one run with the default settings.
    """
    from genprior.priors.base import ABILITIES

    names = {cls: ability for ability, cls in ABILITIES.items()}
    click.echo(f"{'solver':16}{'NFE':>5}  {'needs':12}summary")
    for name in SOLVERS:
        cls = lookup(SOLVERS, name, "solver")
        click.echo(f"{name:16}{cls().nfe:>5}  {names[cls.needs]:12}{cls.summary}")
