"""`make up`: the whole product on this machine, with its own database and broker unless others are named."""

import fcntl
import http.client
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import make_url

from devstack import DevstackError
from devstack.passwords import kept_key_file, kept_password, kept_signing_key, write_private
from devstack.processes import HOST, Command, port_is_free
from devstack.procfile import read_procfile
from devstack.servers import EmbeddedPostgres, EmbeddedValkey, broker_answers, database_answers
from devstack.supervisor import Part, StackStopped, Stage, Supervisor

CHECKOUT = Path(__file__).resolve().parent.parent
DATABASE, BROKER = "WORKSPACES_DATABASE_URL", "WORKSPACES_BROKER_URL"
OWNER, DATA_DIR = "WORKSPACES_MIGRATION_DATABASE_URL", "WORKSPACES_DATA_DIR"
SERVER, STOP_GRACE = "WORKSPACES_SERVER", "WORKSPACES_STOP_GRACE_SECONDS"
FLOWER_LOGIN, SECRETS_KEYS = "FLOWER_BASIC_AUTH", "WORKSPACES_SECRETS_KEY_FILE"
CONSOLE_KEYS, FLOWER_URL = "WORKSPACES_CONSOLE_KEY_FILE", "WORKSPACES_FLOWER_URL"
SIGNING_FILE = "WORKSPACES_ACCESS_KEY_SIGNING_FILE"
WORKERS = {"worker", "maintenance", "notify", "runtime"}
USE_SECRETS = {"web", "notify", "runtime"}
READY_WORDS = dict.fromkeys(WORKERS, " ready.") | {"beat": "beat: Starting"}
"""Text of the INFO line that each program prints when it is ready."""
ANSWER_TIMEOUT_S = 30.0
READY_TIMEOUT_S = 120.0


def main() -> int:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; the exit status is 1 if it ends for another reason."""
    data_dir = Path(os.environ.get(DATA_DIR) or CHECKOUT / ".data").resolve()
    os.chdir(CHECKOUT)  # the working directory of the Procfile's lines
    supervisor = Supervisor(sys.stdout)

    def ask_to_stop(*_: object) -> None:
        supervisor.stopping = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, ask_to_stop)
    try:
        with exclusive_use_of(data_dir):
            try:
                run_stack(supervisor, data_dir)
            finally:
                supervisor.stop()
    except StackStopped:
        supervisor.log("stopped")
    except DevstackError as error:
        sys.stderr.write(f"make up: {error}\n")
        return 1
    return 0


def run_stack(supervisor: Supervisor, data_dir: Path) -> None:
    """Start everything in order, print the addresses, and keep it running."""
    port, flower_port = free_port_of("PORT", 8080), free_port_of("FLOWER_PORT", 5555)
    if port == flower_port:
        raise DevstackError(f"PORT and FLOWER_PORT are both {port}; give each one of its own.")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "HOST": HOST,
        "PORT": str(port),
        "FLOWER_HOST": HOST,
        "FLOWER_PORT": str(flower_port),
        FLOWER_URL: os.environ.get(FLOWER_URL) or f"http://{HOST}:{flower_port}",
        DATA_DIR: str(data_dir),
        # The stack stops within ten seconds: a worker returns its slice instead of finishing it.
        "REMAP_SIGTERM": "SIGQUIT",
        "WORKSPACES_WORKER_SOFT_SHUTDOWN_SECONDS": "3",
        # And the runtime worker sees the end of the jobs that ignore SIGTERM, so that their results are kept.
        STOP_GRACE: os.environ.get(STOP_GRACE) or "4",
    }
    login = provide_secrets(data_dir, environment)
    places = {
        "API": f"http://{HOST}:{port}",
        "console": f"http://{HOST}:{port}/console",
        "Flower": f"http://{HOST}:{flower_port}, login {login}",
    }
    places |= provide_servers(supervisor, data_dir, environment)
    # Only what migrates is the owner of the tables.
    owner = {OWNER: url} if (url := environment.pop(OWNER, "")) else {}
    # And only what encrypts secrets, or decrypts them, has the keys; those of cookies are for what answers browsers.
    keys = {SECRETS_KEYS: environment.pop(SECRETS_KEYS)}
    console_keys = {CONSOLE_KEYS: environment.pop(CONSOLE_KEYS)}

    def part(name: str, line: str, **more: str) -> Part:
        stage = Stage.WORKERS if name in WORKERS else Stage.ENTRY
        ready_words = READY_WORDS.get(name, "") if prints_info(environment) else ""
        own = more | (keys if name in USE_SECRETS else {}) | (console_keys if name == "web" else {})
        return Part(name, Command(("/bin/sh", "-c", line), env=environment | own), stage, ready_words)

    lines = read_procfile(CHECKOUT / "Procfile")
    supervisor.run_to_end(part("release", lines.pop("release"), **owner))
    for name, line in lines.items():
        supervisor.start(part(name, line))
    wait_until_ready(supervisor, {port: "/health/ready", flower_port: "/healthcheck"})
    supervisor.log("ready; Ctrl-C stops everything")
    for what, place in places.items():
        supervisor.log(f"  {what:<9} {place}")
    supervisor.is_up = True
    supervisor.run()


def provide_secrets(data_dir: Path, environment: dict[str, str]) -> str:
    """Add the login of Flower and the files of keys to `environment`, unless it has them; how to say the login."""
    environment[SECRETS_KEYS] = environment.get(SECRETS_KEYS) or kept_key_file(data_dir / "secrets-keys")
    environment[CONSOLE_KEYS] = environment.get(CONSOLE_KEYS) or kept_key_file(data_dir / "console-keys")
    if not environment.get(SIGNING_FILE):
        environment[SIGNING_FILE] = str(kept_signing_key(data_dir / "access-key-signing.pem"))
    if environment.get(FLOWER_LOGIN):
        return f"from {FLOWER_LOGIN}"
    environment[FLOWER_LOGIN] = f"workspaces:{kept_password(data_dir / 'flower-password')}"
    return environment[FLOWER_LOGIN]


def prints_info(environment: dict[str, str]) -> bool:
    """Whether the programs print their INFO lines."""
    return environment.get("WORKSPACES_LOG_LEVEL", "INFO").upper() in {"DEBUG", "INFO"}


def wait_until_ready(supervisor: Supervisor, health_paths: dict[int, str]) -> None:
    """Wait until each port answers at its path and every worker is ready, and until their logs are silent."""
    for port, path in health_paths.items():
        supervisor.wait_until(
            partial(is_healthy, port, path),
            f"http://{HOST}:{port}{path} does not answer with 200",
            timeout_s=READY_TIMEOUT_S,
        )
    supervisor.wait_until(
        lambda: supervisor.all_at_work, "not every worker is ready", timeout_s=READY_TIMEOUT_S
    )
    # Flower and the workers log each other's arrival for a moment; the addresses stand below that.
    supervisor.wait_for_silence(silence_s=1.5, timeout_s=10)


def provide_servers(supervisor: Supervisor, data_dir: Path, environment: dict[str, str]) -> dict[str, str]:
    """Start the servers for which `environment` has no URL, add their URLs to it, and wait until both answer.

    Returns the addresses and directories to print. Passwords are not among them: the file `environment` in the data
    directory has all that the command line needs.
    """
    places = {"database": f"from {DATABASE}", "broker": f"from {BROKER}", "data": str(data_dir)}
    if not environment.get(DATABASE):
        postgres = EmbeddedPostgres(data_dir / "postgres", durable=True)
        postgres.prepare()
        supervisor.start(Part(postgres.name, postgres.command, Stage.SERVERS))
        environment[DATABASE], environment[OWNER] = postgres.product_url, postgres.url
        places["database"] = make_url(postgres.product_url).render_as_string(hide_password=True)
        if not postgres.home.cluster.is_relative_to(data_dir):
            why = f"PostgreSQL runs as {postgres.home.user}, who cannot enter {data_dir}"
            places["database"] += f" (its data is in {postgres.home.cluster}: {why})"
    if not environment.get(BROKER):
        valkey = EmbeddedValkey(data_dir / "valkey")
        valkey.prepare()
        supervisor.start(
            Part(valkey.name, valkey.command, Stage.SERVERS, repair=valkey.set_aside_what_is_damaged)
        )
        environment[BROKER] = valkey.url
        places["broker"] = make_url(valkey.url).render_as_string(hide_password=True)
    # The role of the processes may be one that `release` is about to make.
    asked = {DATABASE: environment.get(OWNER) or environment[DATABASE], BROKER: environment[BROKER]}
    for (variable, url), answers in zip(asked.items(), (database_answers, broker_answers), strict=True):
        supervisor.wait_until(partial(answers, url), no_answer_at(variable), timeout_s=ANSWER_TIMEOUT_S)
    names = (DATABASE, OWNER, BROKER, DATA_DIR, SECRETS_KEYS)
    known = {name: environment[name] for name in names if environment.get(name)}
    known[SERVER] = f"http://{HOST}:{environment['PORT']}"
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in known.items())
    write_private(data_dir / "environment", exports)
    return places


def no_answer_at(variable: str) -> str:
    """What is wrong if no server answers at the URL of that variable."""
    why = f"no server answers at {variable}"
    if not os.environ.get(variable):
        return why
    # The file `environment` of a data directory sets it, and whoever has read that has it in the shell.
    return f"{why}, which is set here; without it `make up` starts a server of its own"


@contextmanager
def exclusive_use_of(data_dir: Path) -> Iterator[None]:
    """Lock the data directory for this process. Raises DevstackError if another process has it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir.chmod(0o700)
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DevstackError(
                f"another stack runs on {data_dir}; stop it or set another WORKSPACES_DATA_DIR."
            ) from None
        yield


def free_port_of(variable: str, default: int) -> int:
    """The port that the variable names. Raises DevstackError if it is no valid port or is in use."""
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise DevstackError(f"{variable} must be a port between 1 and 65535, not '{text}'.")
    if not port_is_free(int(text)):
        raise DevstackError(f"port {text} is in use; choose another one with {variable}=… make up.")
    return int(text)


def is_healthy(port: int, path: str) -> bool:
    """Whether a GET of the path returns 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
