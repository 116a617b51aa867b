"""Make a workspace and fill it through the SDK. Arguments: its name, and a JSON object with how many of what."""

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nemo_platform import NeMoPlatform

PARALLEL_REQUESTS = 4  # The server takes six files at a time, and a slow one has not yet closed those before.

name, wanted = sys.argv[1], json.loads(sys.argv[2])
client = NeMoPlatform(base_url=os.environ["NMP_BASE_URL"], workspace=name)


def member(number: int) -> None:
    client.workspaces.members.create(principal=f"user-{number}@example.com", roles=["Viewer"])


def project(number: int) -> None:
    client.projects.create(name=f"project-{number}")


def fileset(number: int) -> None:
    client.files.filesets.create(name=f"set-{number}")
    for path in ("a.txt", "deep/data.bin"):
        client.files.client.upload_file(
            name=f"set-{number}", path=path, content=f"{name} {number}".encode() * 100
        )


def parent(number: int) -> str:
    data = {"number": number, "text": "soup " * 20}
    return client.entities.create("recipe", name=f"recipe-{number}", data=data, project="project-0").id


def child(number: int) -> None:
    client.entities.create("step", name=f"step-{number}", data={}, parent=parents[number % len(parents)])


def job(number: int) -> None:
    executor = {"provider": "subprocess", "command": ["sleep", "600"]}
    platform_spec = {"steps": [{"name": "main", "executor": executor}]}
    created = client.jobs.create(name=f"job-{number}", source="tests", spec={}, platform_spec=platform_spec)
    client.files.client.upload_file(name=created.fileset, path="result", content=b"42")


def output(number: int) -> None:
    executor = {"provider": "subprocess", "command": ["sleep", "600"]}
    token = [{"name": "TOKEN", "from_secret": {"name": "secret-0"}}]
    client.jobs.create(
        name=f"output-{number}",
        source="tests",
        spec={},
        platform_spec={"steps": [{"name": "main", "executor": executor, "environment": token}]},
        extra_body={"output_location": "set-0"},
    )
    path = f"jobs/output-{number}/results/weights"
    client.files.client.upload_file(name="set-0", path=path, content=b"42")


def line(number: int) -> None:
    names = {"job": "elsewhere", "job_attempt": "0", "job_step": "main", "job_task": "main"}
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in names.items()]
    scope = {"logRecords": [{"body": {"stringValue": f"line {number}"}}]}
    client.post(
        f"/apis/files/v2/workspaces/{name}/filesets/set-0/otlp/v1/logs",
        cast_to=object,
        body={"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": [scope]}]},
    )


def config(number: int) -> None:
    client.inference.deployment_configs.create(
        name=f"config-{number}", engine="generic", executor_config={"gpu": 0}, model_spec={}
    )


def deployment(number: int) -> None:
    client.inference.deployments.create(name=f"serving-{number}", config="config-0")


def secret(number: int) -> None:
    client.secrets.create(name=f"secret-{number}", value="open sesame")


client.workspaces.create(name=name)
client.files  # noqa: B018 -- made on first use, which is not safe in several threads at once
with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:

    def make(kind: str, one: Callable) -> list:
        return list(pool.map(one, range(wanted[kind])))

    make("members", member)
    make("projects", project)
    make("filesets", fileset)
    parents = make("parents", parent)
    make("children", child)
    make("jobs", job)
    make("configs", config)
    make("deployments", deployment)
    make("secrets", secret)
    make("outputs", output)
    make("lines", line)
