"""`workspaces openapi`: the description of the API."""

import json

import click

from app.api.application import document


@click.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    click.echo(json.dumps(document(asks_who=True), indent=2))
