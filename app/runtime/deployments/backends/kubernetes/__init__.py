"""Deployments in a Kubernetes cluster. The client library is an optional extra."""

from importlib.util import find_spec

NO_CLIENT = "there is no client of Kubernetes here: pip install '.[kubernetes]' in a checkout"


def has_kubernetes() -> bool:
    """Whether the client library of Kubernetes is installed here."""
    return find_spec("kubernetes") is not None
