"""Settings: a bad one refuses to start, and none is undocumented or unused."""

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from app.config import Settings, load_settings
from app.config.keys import read_keys
from app.config.loading import _OF_JOBS
from app.runtime.processes.leaked_processes import RUN_VARIABLE
from app.storage.blob_store import BlobStore
from tests.support.preloaded import run_preloaded

ROOT = Path(__file__).parent.parent
A_KEY = base64.b64encode(bytes(range(32))).decode()
NAMES = {f"WORKSPACES_{name.upper()}" for name in Settings.model_fields}


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> str:
    """The one line with which every program of the product ends at once when the variable has that value."""
    monkeypatch.setenv(name, value)
    load_settings.cache_clear()
    with pytest.raises(SystemExit) as end:
        load_settings()
    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def upgrade(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run `workspaces db upgrade` with these settings."""
    command = ("python", "-m", "app.cli", "db", "upgrade")
    return run_preloaded(*command, env={**os.environ, **environment}, cwd=ROOT)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("WORKSPACES_SLICE_SECONDS", "soon", "number"),
        ("WORKSPACES_SLICE_SECONDS", "-1", "greater than 0"),
        ("WORKSPACES_SLICE_SECONDS", "40", "shorten the slice"),
        ("WORKSPACES_SWEEP_SECONDS", "nan", "finite number"),
        ("WORKSPACES_DELETION_GRACE", "inf", "finite number"),
        ("WORKSPACES_DELETION_GRACE", "1e12", "less than or equal to"),
        ("WORKSPACES_STAGED_UPLOAD_DAYS", "1e9", "less than or equal to"),
        ("WORKSPACES_DELETION_RETENTION_DAYS", "30", "at least WORKSPACES_BACKUP_RETENTION_DAYS (90)"),
        ("WORKSPACES_JWKS_CACHE_SECONDS", "604800", "less than or equal to 86400"),
        ("WORKSPACES_LEASE_SECONDS", "50", "WORKSPACES_TASK_HARD_LIMIT_SECONDS < WORKSPACES_LEASE_SECONDS"),
        ("WORKSPACES_STORAGE_GROUP", "nobodys", "there is no group 'nobodys'"),
        ("WORKSPACES_DATABASE_URL", "sqlite:///x.db", "postgresql+psycopg://"),
        ("WORKSPACES_MIGRATION_DATABASE_URL", "sqlite:///x.db", "postgresql+psycopg://"),
        ("WORKSPACES_DATABASE_PREPARE_THRESHOLD", "-1", "greater than or equal to 0"),
        ("WORKSPACES_BROKER_URL", "sentinel://127.0.0.1:26379/0", "Sentinel is not supported"),
        ("WORKSPACES_BROKER_URL", "redis+cluster://127.0.0.1:7000", "a cluster of Redis is not supported"),
        ("WORKSPACES_BROKER_URL", "nonsense", "must be redis://host:port/number"),
        ("WORKSPACES_BROKER_URL", "amqp://127.0.0.1", "no other broker is supported"),
        ("WORKSPACES_BROKER_URL", "redis://127.0.0.1:port/0", "must be redis://host:port/number"),
        ("WORKSPACES_BROKER_URL", "redis:///0", "must be redis://host:port/number"),
        ("WORKSPACES_BROKER_URL", "redis://127.0.0.1/first", "must be redis://host:port/number"),
        ("WORKSPACES_RUNTIME_HOST", "kubernetes", "WORKSPACES_RUNTIME_HOST cannot"),
        ("WORKSPACES_LOG_LEVEL", "LOUD", "'DEBUG'"),
        ("WORKSPACES_REATTEMPT_DELAYS_SECONDS", "soon", "WORKSPACES_REATTEMPT_DELAYS_SECONDS: must be JSON"),
        ("WORKSPACES_REATTEMPT_DELAYS_SECONDS", "[]", "at least one"),
        ("WORKSPACES_VISIBILITY_TIMEOUT_SECONDS", "60", "WORKSPACES_VISIBILITY_TIMEOUT_SECONDS must"),
        ("WORKSPACES_OIDC_ISSUER", "https://issuer.example", "WORKSPACES_OIDC_AUDIENCE"),
        ("WORKSPACES_OIDC_ISSUER", "http://issuer.example", "https"),
        ("WORKSPACES_AUTH_ENABLED", "true", "lets nobody in"),
        ("WORKSPACES_OIDC_ADDITIONAL_ISSUERS", '["https://issuer.example"]', "WORKSPACES_OIDC_ISSUER"),
        ("WORKSPACES_OIDC_JWKS_URI", "file:///etc/passwd", "https"),
        ("WORKSPACES_TRUSTED_HOSTS", "api.example.com", "WORKSPACES_TRUSTED_HOSTS: must be JSON"),
        ("WORKSPACES_TRUSTED_HOSTS", '["https://api.example.com"]', "without scheme and port"),
        ("WORKSPACES_TRUSTED_HOSTS", '["api.example.com:8080"]', "without scheme and port"),
        ("WORKSPACES_TRUSTED_HOSTS", '["*"]', "'*' is no host name"),
        ("WORKSPACES_TRUSTED_ORIGINS", '["console.example.com"]', "give scheme and host"),
        ("WORKSPACES_TRUSTED_ORIGINS", '["https://console.example.com/"]', "give scheme and host"),
        ("WORKSPACES_TRUSTED_ORIGINS", '["null"]', "give scheme and host"),
        ("WORKSPACES_SERVICES", "jobs", "WORKSPACES_SERVICES: must be JSON"),
        ("WORKSPACES_GATEWAY_SECRET", "short", "16 characters"),
        ("WORKSPACES_SECRETS_KEY_FILE", "/nowhere", "'/nowhere' cannot be read: No such file"),
        ("WORKSPACES_CONSOLE_KEY_FILE", "/nowhere", "'/nowhere' cannot be read: No such file"),
        ("WORKSPACES_CONSOLE_SESSION_SECONDS", "1", "greater than or equal to 60"),
        ("WORKSPACES_OIDC_CLIENT_SECRET", "short", "16 characters"),
        ("WORKSPACES_SECRETS_KEY_FILE", "/dev/null", "'/dev/null' is no file"),
        ("WORKSPACES_GATEWAY_HEADERS", "x-nhx", "'nmp' or 'nhx'"),
        ("WORKSPACES_ACCESS_KEYS_ENABLED", "true", "WORKSPACES_ACCESS_KEY_SIGNING_FILE"),
        ("WORKSPACES_ACCESS_KEY_MAX_SECONDS", "-1", "greater than or equal to 0"),
        ("WORKSPACES_EXECUTION_PROFILES", "subprocess", "WORKSPACES_EXECUTION_PROFILES: must be JSON"),
        ("WORKSPACES_EXECUTION_PROFILES", '[{"provider": "gpu"}]', "'subprocess' or 'cpu'"),
        ("WORKSPACES_EXECUTION_PROFILES", '[{"provider": "cpu"}, {"provider": "cpu"}]', "'cpu/default'"),
        ("WORKSPACES_EXECUTION_PROFILES", '[{"provider": "cpu", "environment": {"A=B": "1"}}]', "'A=B'"),
    ],
)
def test_a_bad_value_refuses_to_start_with_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    complaint: str,
) -> None:
    line = refusal(monkeypatch, capsys, name, value)

    assert line.startswith("WORKSPACES_")
    assert complaint in line
    assert name in line
    assert "WORKSPACES_*" not in line


@pytest.mark.parametrize(
    "login", [{}, {"auth_enabled": True, "allow_unsigned_jwt": True}], ids=["auth-off", "unsigned"]
)
def test_where_anybody_may_be_anybody_there_are_no_access_keys(login: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="in the name of anybody"):
        Settings(access_keys_enabled=True, access_key_signing_file="keys.pem", **login)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("WORKSPACES_LEASE_SECNDS", "did you mean WORKSPACES_LEASE_SECONDS?"),
        ("WORKSPACES_DATABASEURL", "did you mean WORKSPACES_DATABASE_URL?"),
        ("WORKSPACES_SERVR", "did you mean WORKSPACES_SERVER?"),
        ("WORKSPACES_PORT", "there is no such setting"),
        ("WORKSPACES_XYZZY", "see .env.example"),
    ],
)
def test_a_variable_that_nothing_reads_refuses_to_start_and_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, remedy: str
) -> None:
    line = refusal(monkeypatch, capsys, name, "8080")

    assert line.startswith(f"{name}: there is no such setting; ")
    assert remedy in line


@pytest.mark.parametrize(
    "url",
    ["rediss://:word@redis.example:6380/1?ssl_cert_reqs=required", "redis://[::1]:6379", "redis://redis"],
)
def test_the_address_of_a_broker_is_accepted(url: str) -> None:
    assert Settings(broker_url=url).broker_url == url


def test_what_others_set_under_our_prefix_is_no_mistake() -> None:
    told = {
        "WORKSPACES_RESULTS_DIR": "/runs/1/results",
        RUN_VARIABLE: "1",
        # Read by the command line alone.
        "WORKSPACES_SERVER": "https://api.example.com",
        "WORKSPACES_TOKEN": "token",
        "WORKSPACES_TOKEN_FILE": "/token",
        # By Kubernetes, beside services called workspaces and workspaces-web.
        "WORKSPACES_SERVICE_HOST": "10.0.0.1",
        "WORKSPACES_WEB_SERVICE_PORT_HTTP": "8080",
        "WORKSPACES_PORT": "tcp://10.0.0.1:8080",
        "WORKSPACES_PORT_8080_TCP_ADDR": "10.0.0.1",
    }

    ended = upgrade(**told, WORKSPACES_DATABASE_URL="postgresql+psycopg://app@127.0.0.1:1/x")

    assert ended.returncode == 1
    assert "does not answer" in ended.stderr


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        (f"{A_KEY}\n", 0o644, "others may read or write '{file}' (mode 0644): chmod 600 it"),
        (f"{A_KEY}\n", 0o606, "others may read or write '{file}' (mode 0606): chmod 600 it"),
        ("\n# none yet\n", 0o600, "'{file}' has no key: write one into it"),
        (f"{A_KEY}\nhunter2\n", 0o600, "line 2 of '{file}' is no key: it must be 32 bytes as base64"),
        (f"{A_KEY[:-4]}\n", 0o600, "line 1 of '{file}' is no key: it must be 32 bytes as base64"),
    ],
    ids=["readable", "writable", "empty", "no base64", "short"],
)
def test_a_key_file_that_others_can_read_or_that_has_no_keys_refuses_to_start(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: str,
    mode: int,
    complaint: str,
) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    file.chmod(mode)

    line = refusal(monkeypatch, capsys, "WORKSPACES_SECRETS_KEY_FILE", str(file))

    assert line.startswith("WORKSPACES_SECRETS_KEY_FILE: ")
    assert complaint.format(file=file) in line
    assert "hunter2" not in line
    assert A_KEY[:-4] not in line


def test_a_key_file_may_have_several_keys_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.touch(mode=0o600)
    file.write_text(f"# since May\n{A_KEY}\n\n  {A_KEY}  \n")

    assert read_keys(Settings(secrets_key_file=str(file)).secrets_key_file) == (bytes(range(32)),) * 2


def test_the_command_line_refuses_to_start_with_a_wrong_setting() -> None:
    ended = upgrade(WORKSPACES_SLICE_SECONDS="soon")

    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)


def test_what_jobs_are_told_is_known() -> None:
    code = "".join(path.read_text() for path in (ROOT / "app" / "runtime").rglob("*.py"))

    told = set(re.findall(r'"(WORKSPACES_[A-Z_]+)"', code))
    assert told == _OF_JOBS, (
        "Name in `_OF_JOBS` of app/config/loading.py what processes are told, or a command they run refuses it."
    )


@pytest.mark.parametrize("place", ["s3://bucket/prefix", "s3://bucket/prefix/log"])
def test_the_deletion_log_lies_outside_the_store(place: str) -> None:
    with pytest.raises(ValueError, match="must lie outside the store"):
        Settings(storage_url="s3://bucket/prefix", deletion_log_url=place)

    Settings(storage_url="s3://bucket/prefix", deletion_log_url="s3://bucket/prefix-log")


def test_processes_of_jobs_are_for_linux_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.config.processes.CAN_END_PROCESSES", False)

    settings = Settings()
    assert (settings.runs_processes, settings.profiles, settings.backend) == (False, {}, "none")
    with pytest.raises(ValueError, match="needs Linux"):
        Settings(subprocess_provider="on")


def test_every_setting_is_in_the_example_file_and_nothing_else_is() -> None:
    written = re.findall(r"^#? ?(WORKSPACES_\w+)=", (ROOT / ".env.example").read_text(), re.M)

    assert set(written) == NAMES, "Give each field of Settings one line in .env.example, with its default."
    assert len(written) == len(NAMES)


def test_every_setting_is_documented_with_its_default_and_nothing_else_is() -> None:
    document = (ROOT / "docs" / "configuration.md").read_text()
    found = re.findall(r"^\| `(WORKSPACES_\w+)` \| (.*?) \| .+ \|$", document, re.M)
    rows = dict(found)

    assert set(rows) == NAMES, "Give each field of Settings a row in docs/configuration.md."
    assert len(found) == len(NAMES), "Give it one row."
    for name, shown in rows.items():
        default = Settings.model_fields[name.removeprefix("WORKSPACES_").lower()].default
        expected = list(default) if isinstance(default, tuple) else default
        expected = json.dumps(default) if isinstance(default, dict) else expected
        assert shown == (f"`{expected}`" if str(expected) else ""), (
            f"{name}: docs/configuration.md shows another default"
        )


def test_every_setting_has_one_text_in_the_code_the_documents_and_the_example_file() -> None:
    documents = "".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    rows = dict(re.findall(r"^\| `(WORKSPACES_\w+)` \| .*? \| (.+) \|$", documents, re.M))
    comments = {
        name: re.sub(r"\n# ", " ", comment)
        for comment, name in re.findall(
            r"^# (.+(?:\n# .+)*)\n#(WORKSPACES_\w+)=", (ROOT / ".env.example").read_text(), re.M
        )
    }

    for name in sorted(NAMES):
        field = Settings.model_fields[name.removeprefix("WORKSPACES_").lower()]
        text = " ".join((field.description or "").split())
        assert text, f"{name} needs a text below its field in Settings"
        assert rows[name] == text, f"{name}: its row is not the text of its field"
        assert comments[name] == text.replace("`", ""), f"{name}: its comment in .env.example is another text"


def test_every_setting_is_used() -> None:
    code = "".join(
        path.read_text()
        for package in ("app", "workers", "devstack")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "settings.py"
    )
    config = (ROOT / "app" / "config" / "settings.py").read_text()
    unused = {
        name
        for name in Settings.model_fields
        if not re.search(rf"\.{name}\b", code) and not re.search(rf"self\.{name}\b", config)
    }

    assert unused == set(), "These settings change nothing; use them or remove them."


def test_deployment_files_name_only_settings_that_exist() -> None:
    for file in ("Procfile", "docker-compose.yml", "Dockerfile"):
        named = set(re.findall(r"WORKSPACES_[A-Z_]+", (ROOT / file).read_text()))
        assert named <= NAMES, f"{file} sets a variable that no code reads"


@pytest.mark.parametrize(
    "name", ["plain", "my data", "ann@corp", "a+b", "100%", "a%20b", "jürgen", "a#b", "a?b"]
)
def test_bytes_are_in_the_data_directory_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    store = BlobStore.open(Settings(data_dir=directory).blob_url)

    store.publish(store.stage(uuid4(), uuid4(), "a", [b"x"]))

    [file] = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.is_relative_to(directory / "blobs")
