"""What is built from the checkout works without it: installed from the wheel, in an empty directory."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from app.cli.serve import serve
from app.version import VERSION
from devstack.processes import Command, free_port, kill_group
from devstack.procfile import read_procfile

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.check_output(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
)
FILES = [name for name in TRACKED.strip("\0").split("\0") if (ROOT / name).is_file()]
BUILD_SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the source distribution, as an installer without a wheel would."""
    home = tmp_path_factory.mktemp("built")
    checkout = home / "checkout"  # building writes beside the sources
    for name in FILES:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    subprocess.run(
        [sys.executable, "-c", BUILD_SDIST, str(home)], cwd=checkout, check=True, capture_output=True
    )
    [source] = home.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(home), str(source)], check=True, capture_output=True)
    [made] = home.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and everything else from the one of the tests."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--python", str(python)]
    subprocess.run([*uv, "--no-deps", "--no-index", "--no-cache", wheel], check=True, capture_output=True)
    [packages] = home.glob("lib/python*/site-packages")
    # By path alone: what the tests' own environment does to find this checkout is not carried out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    gunicorn = home / "bin" / "gunicorn"
    gunicorn.write_text(f"#!{python}\nfrom gunicorn.app.wsgiapp import run\nrun()\n")
    gunicorn.chmod(0o755)
    return home / "bin"


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    """An empty database on the server of this test run."""
    server = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS installed"))
        connection.execute(text("CREATE DATABASE installed"))
        yield database_url.rpartition("/")[0] + "/installed"
        connection.execute(text("DROP DATABASE installed WITH (FORCE)"))
    server.dispose()


def environment(**variables: str) -> dict[str, str]:
    ours = ("WORKSPACES_", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables


def test_the_wheel_has_all_that_the_product_reads(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())

    packages = ("app/", "workers/", "devstack/")
    assert {name for name in FILES if name.startswith(packages)} <= held
    beside = {name for name in FILES if name.startswith("migrations/")} | {"Procfile", "alembic.ini"}
    assert {f"app/installed/{name}" for name in beside} <= held
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


def test_nothing_lies_loose_among_the_packages_of_others(wheel: Path) -> None:
    held = zipfile.ZipFile(wheel).namelist()

    top = {name.partition("/")[0] for name in held}
    assert {name for name in top if not name.endswith(".dist-info")} == {"app", "workers", "devstack"}


@pytest.mark.timeout(180)
def test_what_is_installed_migrates_and_serves_in_an_empty_directory(
    programs: Path, empty_database: str, tmp_path: Path
) -> None:
    port = free_port()
    known = environment(
        WORKSPACES_DATABASE_URL=empty_database,
        WORKSPACES_DATA_DIR=str(tmp_path / "data"),
        WEB_CONCURRENCY="1",
        PORT=str(port),
    )
    directory = tmp_path / "empty"
    directory.mkdir()

    def said(*arguments: str) -> str:
        return subprocess.check_output(
            [str(programs / "workspaces"), *arguments], cwd=directory, env=known, text=True
        ).strip()

    assert said("--version") == f"workspaces {VERSION}"
    assert said("db", "upgrade") == f"the schema is that of {VERSION}; made: default, system"
    assert said("db", "upgrade").endswith("none was missing")

    log = tmp_path / "log"
    where = f"cd '{directory}' && exec '{programs / 'workspaces'}' serve"
    with log.open("wb") as output:
        server = Command(("/bin/sh", "-c", where), env=known).spawn(output)
    try:
        assert answer(f"http://127.0.0.1:{port}/health/ready", server).json() == {"status": "ready"}
        assert answer(f"http://127.0.0.1:{port}/docs", server).is_success
        described = answer(f"http://127.0.0.1:{port}/openapi.json", server).json()
    finally:
        kill_group(server)
    assert described["info"]["version"] == VERSION
    assert list(directory.iterdir()) == []
    assert str(ROOT) not in log.read_text()


def answer(url: str, server: "subprocess.Popen[bytes]") -> httpx.Response:
    deadline = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < deadline:
        try:
            return httpx.get(url, timeout=10)
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("it does not answer")


def test_every_process_can_be_served() -> None:
    [process] = serve.params

    assert set(process.type.choices) == set(read_procfile(ROOT / "Procfile")) - {"release"}
