"""The product itself: its processes, and the description of its API."""

import json

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


@click.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from app.api.application import document  # noqa: PLC0415 -- the other commands need no web framework

    click.echo(json.dumps(document(asks_who=True), indent=2))
