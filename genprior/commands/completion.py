"""genprior completion: completion scripts for bash, zsh and fish."""

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in a shell.

    \b
    bash: add to ~/.bashrc: eval "$(genprior completion bash)"
    zsh:  add to ~/.zshrc:  eval "$(genprior completion zsh)"
    fish: genprior completion fish > ~/.config/fish/completions/genprior.fish
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    root = ctx.find_root().command
    click.echo(script(root, {}, "genprior", "_GENPRIOR_COMPLETE").source())
