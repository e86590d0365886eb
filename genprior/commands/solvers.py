"""solvers: what there is to restore with."""

import click

from genprior.registry import SOLVERS, lookup


@click.command()
def solvers() -> None:
    """List the solvers: what they cost, what they need of a prior, when to use them.

    By one run with the default settings, --steps among them, which a solver without steps has
    none of: NFE counts the evaluations of the prior's network, many for a step of some solvers,
    "backward" the products with its Jacobian, each about as costly as an evaluation or two.
    """
    from genprior.priors.base import ABILITIES

    names = {cls: ability for ability, cls in ABILITIES.items()}
    click.echo(f"{'solver':16}{'steps':>5}{'NFE':>7}{'backward':>10}  {'needs':12}use it for")
    for name in SOLVERS:
        cls = lookup(SOLVERS, name, "solver")
        steps = getattr(cls(), "steps", "-")
        cost = f"{steps:>5}{cls().nfe:>7}{cls().jacobian_products:>10}"
        click.echo(f"{name:16}{cost}  {names[cls.needs]:12}{cls.summary}")
