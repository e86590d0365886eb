"""genprior solvers: table of the solvers and their costs."""

import click

from genprior.core.errors import SettingError
from genprior.registry import SOLVERS, lookup


@click.command()
def solvers() -> None:
    """List the solvers, their costs and their uses.

    The costs are those of one run with the settings of genprior.make_solver(NAME). Columns:

    \b
    steps     number of steps; "-" where the solver has none. hqs takes fewer for some
              measurements, and posterior-mean fewer evaluations, see --quality
    NFE       evaluations of the network of the prior; some solvers need several in a step
    backward  products with the Jacobian of the network; each costs about one or two evaluations
    needs     ability that the prior must have
    """
    from genprior.priors.base import ABILITIES

    names = {cls: ability for ability, cls in ABILITIES.items()}
    click.echo(f"{'solver':16}{'steps':>5}{'NFE':>7}{'backward':>10}  {'needs':17}use it for")
    for name in SOLVERS:
        try:
            cls = lookup(SOLVERS, name, "solver")
        except SettingError as error:  # a plug-in that is broken
            click.echo(f"warning: {error}", err=True)
            continue
        steps = getattr(cls(), "steps", "-")
        cost = f"{steps:>5}{cls().nfe:>7}{cls().jacobian_products:>10}"
        click.echo(f"{name:16}{cost}  {names[cls.needs]:17}{cls.summary}")
