"""docker-compose.yml without an engine: it is valid, and it runs the commands of the Procfile."""

import json
import re
import tomllib

import jsonschema
import pytest
import yaml

from app.config import Settings
from devstack.procfile import read_procfile
from tests.devstack.stacks import REPOSITORY

COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
PROCFILE = read_procfile(REPOSITORY / "Procfile")


def test_it_follows_the_compose_specification() -> None:
    schema = json.loads((REPOSITORY / "tests" / "devstack" / "compose-spec.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)

    jsonschema.validate(COMPOSE, schema, cls=jsonschema.Draft7Validator)


def test_its_services_are_the_procfile_and_two_servers() -> None:
    assert set(SERVICES) == set(PROCFILE) | {"postgres", "broker"}


@pytest.mark.parametrize("name", PROCFILE)
def test_a_service_runs_the_line_of_the_procfile(name: str) -> None:
    # Compose itself would replace a single $.
    assert SERVICES[name]["command"] == ["sh", "-c", PROCFILE[name].replace("$", "$$")]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_the_loopback_interface_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", sorted(set(PROCFILE) - {"release"}))
def test_a_service_waits_for_the_release_and_is_restarted_after_a_crash(name: str) -> None:
    assert SERVICES[name]["depends_on"]["release"] == {"condition": "service_completed_successfully"}
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_the_image_has_what_the_settings_may_ask_for() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [locked] = re.findall(
        r"(--extra .*) -c .* -o requirements/image.txt", (REPOSITORY / "Makefile").read_text()
    )

    assert "-r requirements/image.txt" in (REPOSITORY / "Dockerfile").read_text()
    assert set(re.findall(r"--extra (\S+)", locked)) == extras.keys() - {"devstack", "dev"}


def test_the_host_of_jobs_keeps_its_name_in_the_next_container() -> None:
    assert SERVICES["runtime"]["hostname"]


@pytest.mark.parametrize("name", ["worker", "maintenance", "notify"])
def test_a_worker_has_a_minute_to_give_its_work_back(name: str) -> None:
    assert SERVICES[name]["stop_grace_period"] == "60s"
    assert SERVICES[name]["environment"]["REMAP_SIGTERM"] == "SIGQUIT"


def test_the_runtime_drains_and_has_a_minute_more_to_end_what_is_left() -> None:
    runtime = SERVICES["runtime"]
    drain_s = Settings.model_fields["runtime_drain_seconds"].default

    assert "drain" in runtime["environment"]["WORKSPACES_RUNTIME_ON_STOP"]
    assert runtime["stop_grace_period"] == f"{drain_s + 60}s"


def test_the_broker_loses_no_message_that_it_accepted() -> None:
    command = " ".join(SERVICES["broker"]["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_only_the_release_has_the_password_of_the_tables_owner() -> None:
    owner = {"POSTGRES_PASSWORD", "WORKSPACES_MIGRATION_DATABASE_URL"}
    for name in sorted(set(PROCFILE) - {"release", "flower"}):  # Flower gets neither .env nor a database
        environment = SERVICES[name]["environment"]
        assert {variable: environment[variable] for variable in owner} == dict.fromkeys(owner, "")
        assert "://product:" in environment["WORKSPACES_DATABASE_URL"]
    assert "://workspaces:" in SERVICES["release"]["environment"]["WORKSPACES_MIGRATION_DATABASE_URL"]


def test_only_what_uses_secrets_has_the_file_with_their_keys() -> None:
    given = {name: SERVICES[name]["environment"].get("WORKSPACES_SECRETS_KEY_FILE") for name in PROCFILE}

    assert given.pop("flower") is None, "it gets no .env"
    assert {name for name, file in given.items() if file} == {"web", "notify", "runtime"}
    assert given["web"] == given["notify"] == given["runtime"] == "${WORKSPACES_SECRETS_KEY_FILE:-}"


@pytest.mark.parametrize("variable", ["WORKSPACES_CONSOLE_KEY_FILE", "WORKSPACES_OIDC_CLIENT_SECRET"])
def test_only_what_answers_browsers_has_what_signs_them_in(variable: str) -> None:
    given = {name: SERVICES[name]["environment"].get(variable) for name in PROCFILE}

    assert given.pop("flower") is None, "it gets no .env"
    assert given.pop("web") == f"${{{variable}:-}}"
    assert set(given.values()) == {""}


def test_no_password_is_in_a_command_line() -> None:
    for name, service in SERVICES.items():
        assert "PASSWORD" not in str(service.get("command")), name
    assert "requirepass ${BROKER_PASSWORD" in COMPOSE["configs"]["broker"]["content"]
    for name in PROCFILE:
        assert ":${BROKER_PASSWORD" in SERVICES[name]["environment"]["WORKSPACES_BROKER_URL"], name
    assert SERVICES["broker"]["environment"]["REDISCLI_AUTH"], "its health check needs the password"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_and_no_room_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["mem_limit"]
    assert service["pids_limit"] > 0
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert service["healthcheck"]
    if name in PROCFILE:
        assert "cap_add" not in service
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])


def test_beat_and_flower_see_no_file_that_jobs_can_write() -> None:
    assert {name: SERVICES[name]["volumes"] for name in ("beat", "flower")} == {"beat": [], "flower": []}


def test_flower_gets_no_setting_but_its_own() -> None:
    assert SERVICES["flower"]["env_file"] == []
    assert {name for name in SERVICES["flower"]["environment"] if "DATABASE" in name} == set()


def test_web_does_not_wait_for_the_broker() -> None:
    assert set(SERVICES["web"]["depends_on"]) == {"release"}
    assert all("broker" in SERVICES[name]["depends_on"] for name in set(PROCFILE) - {"web", "release"})


def test_a_change_of_the_code_installs_nothing_again_and_the_image_runs_as_a_number() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    steps = [line.partition(" ")[::2] for line in dockerfile.splitlines() if re.match("[A-Z]+ ", line)]
    copied = [rest for word, rest in steps if word == "COPY"]

    assert copied == ["requirements/image.txt requirements/", ". ."]
    assert dockerfile.index("--require-hashes") < dockerfile.index("COPY . .")
    assert ("USER", "999:999") in steps
    assert "HEALTHCHECK" in dict(steps)


def test_it_says_what_the_runtime_may_do_there() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text()

    assert SERVICES["runtime"]["environment"]["HOST"] == "0.0.0.0"
    assert "WORKSPACES_SUBPROCESS_PROVIDER" in text
