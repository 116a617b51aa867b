"""docker-compose.yml without an engine: it is valid, and it runs the commands of the Procfile."""

import json
import re
import tomllib

import jsonschema
import pytest
import yaml

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


@pytest.mark.parametrize("name", ["worker", "maintenance", "runtime"])
def test_a_worker_has_a_minute_to_give_its_work_back(name: str) -> None:
    assert SERVICES[name]["stop_grace_period"] == "60s"
    assert name == "runtime" or SERVICES[name]["environment"]["REMAP_SIGTERM"] == "SIGQUIT"


def test_the_broker_loses_no_message_that_it_accepted() -> None:
    command = " ".join(SERVICES["broker"]["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_only_the_release_has_the_password_of_the_tables_owner() -> None:
    owner = {"POSTGRES_PASSWORD", "WORKSPACES_MIGRATION_DATABASE_URL"}
    for name in sorted(set(PROCFILE) - {"release"}):
        environment = SERVICES[name]["environment"]
        assert {variable: environment[variable] for variable in owner} == dict.fromkeys(owner, "")
        assert "://product:" in environment["WORKSPACES_DATABASE_URL"]
    assert "://workspaces:" in SERVICES["release"]["environment"]["WORKSPACES_MIGRATION_DATABASE_URL"]


def test_no_password_is_in_a_command_line() -> None:
    for name, service in SERVICES.items():
        assert "PASSWORD" not in str(service.get("command")), name
    assert "requirepass ${BROKER_PASSWORD" in COMPOSE["configs"]["broker"]["content"]
    assert SERVICES["broker"]["environment"]["REDISCLI_AUTH"], "its health check needs the password"
