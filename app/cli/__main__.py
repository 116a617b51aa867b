"""`python -m app.cli`: the command line without its program, as the Procfile calls it."""

from app.cli import main

main(prog_name="workspaces")
