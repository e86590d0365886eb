"""completion: what a shell needs to complete commands and options."""

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: eval "$(genprior completion bash)" in ~/.bashrc
    zsh:  eval "$(genprior completion zsh)" in ~/.zshrc
    fish: genprior completion fish > ~/.config/fish/completions/genprior.fish
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    root = ctx.find_root().command
    click.echo(script(root, {}, "genprior", "_GENPRIOR_COMPLETE").source())
