"""What is broken in a soak, and what `/status` has to name first meanwhile."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import uuid4

import redis

from app.health.heartbeat import Process
from app.storage.blob_store import BlobStore
from app.storage.marker import KEY, Marker
from devstack.servers import EmbeddedServer
from tests.soak.scene import NO_ANSWER, Scene
from tests.support.stack import ALL
from tests.support.tcp_proxy import BLACK_HOLE, DROPPED, PASSING, TcpProxy, Trouble, delayed, truncated

Inflict = Callable[[Scene, Random], AbstractContextManager[None]]

ORDER = (NO_ANSWER, "database", "broker", *Process, "store")
"""In which `/status` names what it finds."""


@dataclass(frozen=True)
class Fault:
    """Something that breaks for a while."""

    name: str
    first: str
    """What `/status` names first; empty if all has to be well."""
    inflict: Inflict
    is_partial: bool = False
    """Whether all may be well now and then."""
    stops_sweeps: bool = False
    ends_runs: bool = False
    """Whether jobs and servers may end because of it."""
    starts_programs: bool = False
    """Whether it ends with the start of a program, which needs its servers."""
    reasons: str = ""
    """A pattern for the reasons of deletions that are FAILED because of it."""


def acceptable(faults: list[Fault]) -> set[str]:
    """What `/status` may name first while all of these are inflicted."""
    partial = {fault.first for fault in faults if fault.is_partial}
    certain = [fault.first for fault in faults if fault.first and not fault.is_partial]
    if partial & {"database", "broker"}:
        partial |= {*Process}  # their heartbeats and messages go the same way
    return partial | ({min(certain, key=ORDER.index)} if certain else {""})


# --- the network ------------------------------------------------------------------------------------------

TROUBLES: dict[str, tuple[Trouble, bool]] = {
    "drops": (DROPPED, False),
    "is a black hole": (BLACK_HOLE, False),
    "truncates each answer": (truncated(), False),
    "truncates some answers": (truncated(whole_answers=20), True),
    "delays": (delayed(0.02), True),
}


def network(name: str, proxy_of: Callable[[Scene], TcpProxy | None], **traits: Any) -> Iterator[Fault]:
    """Each trouble of the network to one server."""
    for trouble_name, (trouble, is_partial) in TROUBLES.items():

        @contextmanager
        def inflict(scene: Scene, _: Random, trouble: Trouble = trouble) -> Iterator[None]:
            proxy = proxy_of(scene)
            assert proxy
            proxy.suffer(trouble)
            try:
                yield
            finally:
                proxy.suffer(PASSING)

        yield Fault(f"the network to the {name} {trouble_name}", name, inflict, is_partial, **traits)


def killed_server(name: str, server_of: Callable[[Scene], EmbeddedServer]) -> Fault:
    @contextmanager
    def inflict(scene: Scene, _: Random) -> Iterator[None]:
        server_of(scene).kill()
        try:
            yield
        finally:
            server_of(scene).start()

    return Fault(f"the {name} is killed", name, inflict, stops_sweeps=True)


@contextmanager
def empty_broker(scene: Scene, _: Random) -> Iterator[None]:
    with redis.Redis.from_url(scene.stack.broker_url) as broker:
        broker.flushall()
    yield


# --- the volume -------------------------------------------------------------------------------------------


@contextmanager
def take_volume_away(scene: Scene, _: Random) -> Iterator[None]:
    assert scene.volume
    away = scene.volume.rename(scene.volume.with_name("unmounted"))
    try:
        yield
    finally:
        if scene.volume.exists():
            scene.ledger.wrong.append(f"where the volume was: {[*scene.volume.rglob('*')]}")
            shutil.rmtree(scene.volume)
        away.rename(scene.volume)


@contextmanager
def put_another_volume(scene: Scene, random: Random) -> Iterator[None]:
    """An empty one, or that of another installation."""
    assert scene.volume
    away = scene.volume.rename(scene.volume.with_name("unmounted"))
    scene.volume.mkdir()
    if random.random() < 0.5:
        BlobStore.open(scene.volume.as_uri()).write_marker(Marker(str(uuid4()), "another/1"))
    try:
        yield
    finally:
        found = [path for path in scene.volume.rglob("*") if path.is_file() and path.name != KEY]
        if found:
            scene.ledger.wrong.append(f"on a volume that is another's: {found}")
        shutil.rmtree(scene.volume)
        away.rename(scene.volume)


# --- programs ---------------------------------------------------------------------------------------------

NAMES = {"web": NO_ANSWER, "worker": "cleanup", **{name: name for name in ALL[2:]}}
"""What `/status` calls the programs of the Procfile."""


def killed(name: str) -> Fault:
    @contextmanager
    def inflict(scene: Scene, _: Random) -> Iterator[None]:
        for part in scene.stack.running(name):
            part.kill()
        yield
        scene.start(name)

    return _program(f"{name} is killed", name, inflict, starts_programs=True)


def paused(name: str) -> Fault:
    @contextmanager
    def inflict(scene: Scene, _: Random) -> Iterator[None]:
        parts = scene.stack.running(name)
        for part in parts:
            part.pause()
        try:
            yield
        finally:
            for part in parts:
                part.resume()

    return _program(f"{name} is stopped and goes on", name, inflict)


def _program(what: str, name: str, inflict: Inflict, *, starts_programs: bool = False) -> Fault:
    return Fault(
        what,
        NAMES[name],
        inflict,
        starts_programs=starts_programs,
        stops_sweeps=name in ("beat", "maintenance"),
        ends_runs=name == "runtime",
    )


@contextmanager
def relieve_worker(scene: Scene, _: Random) -> Iterator[None]:
    """A worker stands still beyond its lease while another one does its work, and then goes on."""
    parts = scene.stack.running("worker")
    for part in parts:
        part.pause()
    other = scene.start("worker")
    try:
        yield
    finally:
        for part in parts:
            part.resume()
    other.stop()


# --- clocks -----------------------------------------------------------------------------------------------


def wrong_clock(name: str) -> Fault:
    @contextmanager
    def inflict(scene: Scene, random: Random) -> Iterator[None]:
        scene.clocks[name].move(random.choice((-1, 1)) * random.uniform(30, 7200))
        try:
            yield
        finally:
            scene.clocks[name].move(0)

    return Fault(f"the clock of {name} is moved, and back", "", inflict)


COMMON: tuple[Fault, ...] = (
    *network("database", lambda scene: scene.database, stops_sweeps=True),
    killed_server("database", lambda scene: scene.stack.postgres),
    *network("broker", lambda scene: scene.broker, stops_sweeps=True),
    killed_server("broker", lambda scene: scene.stack.valkey),
    Fault("the broker is emptied", "", empty_broker),
    *(make(name) for name in ALL for make in (killed, paused, wrong_clock)),
    Fault(
        "a worker is stopped, another one works, it goes on",
        "cleanup",
        relieve_worker,
        is_partial=True,
        starts_programs=True,
    ),
)

OF_STORES: dict[str, tuple[Fault, ...]] = {
    "disk": (
        Fault("the volume is away", "store", take_volume_away, reasons="StoreAbsent"),
        Fault("another volume is in its place", "store", put_another_volume, reasons="StoreAbsent"),
    ),
    "bucket": tuple(network("store", lambda scene: scene.bucket, reasons="TimeoutError|ConnectionError")),
}
