"""Deployments in a Kubernetes cluster. The client library is an optional extra."""

from importlib.util import find_spec

NO_CLIENT = "the Kubernetes client is not installed here: pip install '.[kubernetes]' in a checkout"


def has_kubernetes() -> bool:
    """Whether the Kubernetes client library is installed here."""
    return find_spec("kubernetes") is not None
