"""`workspaces serve`: the processes of the product."""

import click

from app import distribution


@click.command()
@click.argument(
    "process",
    type=click.Choice(["web", "worker", "maintenance", "notify", "runtime", "beat", "flower"]),
    default="web",
)
def serve(process: str) -> None:
    """Run one PROCESS of the product, web unless another one is named, as its Procfile says."""
    distribution.become(process)
