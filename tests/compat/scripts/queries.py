"""Calls every method of the SDK with every argument; prints method, path and parameters of each request."""

import inspect
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

import httpx
from nemo_platform import NeMoPlatform
from nemo_platform._resource import SyncAPIResource

COMMON = {"self", "extra_headers", "extra_query", "extra_body", "timeout", "exist_ok"}
seen: set[tuple[str, str, tuple[str, ...]]] = set()


def answer(request: httpx.Request) -> httpx.Response:
    """Note the request, and answer nothing useful."""
    seen.add((request.method, request.url.path, tuple(sorted(set(request.url.params)))))
    return httpx.Response(200, json={"data": []})


def resources(thing: Any) -> Iterator[Any]:
    """The resources of a client or of a resource, and theirs."""
    for name, made in inspect.getmembers(type(thing), lambda member: isinstance(member, cached_property)):
        if name.startswith(("_", "with_")):
            continue
        with suppress(Exception):
            resource = made.__get__(thing)
            if isinstance(resource, SyncAPIResource):
                yield resource
                yield from resources(resource)


def value_of(parameter: inspect.Parameter) -> Any:
    """Something that the SDK sends for that argument."""
    if parameter.name == "workspace":
        return "default"
    if parameter.name in {"filter", "search"}:
        return {"name": "x"}
    annotation = str(parameter.annotation)
    if annotation.startswith("bool"):
        return True
    if annotation.startswith(("int", "float")):
        return 1
    if annotation.startswith("str"):
        return "x"
    if annotation.startswith(("Dict", "dict", "object")):
        return {}
    return [] if annotation.startswith(("Iterable", "Sequence", "List")) else "x"


def main() -> None:
    """Call them all."""
    transport = httpx.MockTransport(answer)
    client = NeMoPlatform(
        base_url="http://server",
        workspace="default",
        max_retries=0,
        http_client=httpx.Client(transport=transport),
    )
    for resource in resources(client):
        for name, _ in inspect.getmembers(type(resource), inspect.isfunction):
            if name.startswith(("_", "with_")):
                continue
            method = getattr(resource, name)
            parameters = inspect.signature(method).parameters
            if "extra_query" not in parameters:  # It is made of those that have it.
                continue
            given = {
                each.name: value_of(each)
                for each in parameters.values()
                if each.name not in COMMON and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
            }
            with suppress(Exception):
                method(**given)
    sys.stdout.write(json.dumps(sorted(seen)))


main()
