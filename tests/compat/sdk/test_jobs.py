"""Jobs through the SDK. This release accepts and stops jobs and has no executor: an accepted job stays pending."""

import httpx
import pytest
from conftest import Eventually
from nemo_platform import (
    ConflictError,
    NeMoPlatform,
    NotFoundError,
    UnprocessableEntityError,
)

COMMAND = ["python", "-c", "print('hello')"]


def submit(client: NeMoPlatform, name: str, **more: object) -> object:
    step = {"name": "main", "executor": {"provider": "subprocess", "command": COMMAND}, "config": {"seed": 7}}
    job = {"name": name, "source": "tests", "spec": {"epochs": 1}, "platform_spec": {"steps": [step]}}
    return client.jobs.create(**{**job, **more})


def status(client: NeMoPlatform, name: str) -> str | None:
    """The job's status, None once it is gone."""
    try:
        return client.jobs.retrieve(name).status
    except NotFoundError:
        return None


def test_every_field_of_a_job_arrives(client: NeMoPlatform) -> None:
    client.projects.create(name="apollo")

    created = submit(
        client, "train", description="d", project="apollo", custom_fields={"k": [1]}, ownership={"by": "ann"}
    )

    found = client.jobs.retrieve("train")
    assert (found.id, found.attempt_id, found.fileset) == (created.id, created.attempt_id, created.fileset)
    assert (found.workspace, found.name, found.source, found.spec) == (
        client.workspace,
        "train",
        "tests",
        {"epochs": 1},
    )
    assert (found.description, found.project) == ("d", "apollo")
    assert (found.custom_fields, found.ownership) == ({"k": [1]}, {"by": "ann"})
    [step] = found.platform_spec.steps
    assert (step.name, step.config, step.executor.provider, step.executor.command) == (
        "main",
        {"seed": 7},
        "subprocess",
        COMMAND,
    )
    assert client.files.filesets.retrieve(created.fileset).workspace == client.workspace


def test_a_job_without_a_name_is_named_after_its_source(client: NeMoPlatform) -> None:
    platform_spec = {"steps": [{"name": "main", "executor": {"provider": "subprocess", "command": COMMAND}}]}

    created = client.jobs.create(source="nightly-eval", spec={}, platform_spec=platform_spec)

    assert created.name.startswith("nightly-eval-")


def test_an_accepted_job_is_taken_up_by_the_runtime(client: NeMoPlatform, eventually: Eventually) -> None:
    assert submit(client, "train").status == "created"

    eventually(lambda: status(client, "train") == "pending", "the runtime takes the job up")

    told = client.jobs.get_status("train")
    assert (told.name, told.status, told.error_details) == ("train", "pending", {})
    assert [step.name for step in told.steps] == ["main"]
    assert list(client.jobs.get_logs("train")) == []


def test_a_job_is_paused_resumed_and_cancelled(client: NeMoPlatform, eventually: Eventually) -> None:
    submit(client, "train")
    eventually(lambda: status(client, "train") == "pending", "the runtime takes the job up")

    assert client.jobs.pause("train").status == "pausing"
    eventually(lambda: status(client, "train") == "paused", "the runtime confirms the pause")
    assert client.jobs.resume("train").status == "resuming"
    eventually(lambda: status(client, "train") == "pending", "the runtime takes the job up again")
    assert client.jobs.cancel("train").status == "cancelling"
    eventually(lambda: status(client, "train") == "cancelled", "the runtime confirms the end")

    assert client.jobs.cancel("train").status == "cancelled"


def test_a_deleted_job_goes_with_its_fileset_and_frees_its_name(
    client: NeMoPlatform, eventually: Eventually
) -> None:
    created = submit(client, "train")
    client.files.upload_content(content="kept nowhere", remote_path="result", fileset=created.fileset)

    assert client.jobs.delete("train") is None
    eventually(lambda: status(client, "train") is None, "the job goes")

    with pytest.raises(NotFoundError):
        client.files.filesets.retrieve(created.fileset)
    assert submit(client, "train").id != created.id
    with pytest.raises(NotFoundError, match=f"Job 'other' not found in workspace '{client.workspace}'"):
        client.jobs.delete("other")


def test_jobs_are_listed_by_status_source_and_page(client: NeMoPlatform, eventually: Eventually) -> None:
    submit(client, "ended", source="nightly")
    client.jobs.cancel("ended")
    submit(client, "waiting", source="nightly")
    submit(client, "other", source="manual")
    eventually(
        lambda: (
            {job.name: job.status for job in client.jobs.list()}
            == {"ended": "cancelled", "waiting": "pending", "other": "pending"}
        ),
        "one job has ended, two wait",
    )

    def names(**wanted: object) -> list[str]:
        return sorted(job.name for job in client.jobs.list(filter=wanted, page_size=1))

    assert names(status="cancelled") == ["ended"]
    assert names(status=["pending", "cancelled"]) == ["ended", "other", "waiting"]
    assert names(status=["pending"], source="nightly") == ["waiting"]
    assert names(name={"like": "END"}) == ["ended"]
    assert client.jobs.list(filter={"status": "error"}).pagination.total_results == 0


def test_logical_filters_work_although_the_sdk_sends_them_as_python_literals(client: NeMoPlatform) -> None:
    for name, source in [("train", "nightly"), ("tune", "nightly"), ("train-2", "manual")]:
        submit(client, name, source=source)

    def names(wanted: dict) -> set[str]:
        return {job.name for job in client.jobs.list(filter=wanted)}

    assert names({"$and": [{"name": {"$like": "train"}}, {"source": "nightly"}]}) == {"train"}
    assert names({"$or": [{"name": "tune"}, {"source": "manual"}]}) == {"tune", "train-2"}
    assert names({"$not": {"source": "nightly"}}) == {"train-2"}


def test_jobs_of_all_workspaces_are_listed_together(client: NeMoPlatform) -> None:
    submit(client, "train")

    everywhere = client.jobs.list(workspace="-", filter={"workspace": client.workspace})

    assert [(job.workspace, job.name) for job in everywhere] == [(client.workspace, "train")]


def test_a_name_that_is_taken_is_refused_once(client: NeMoPlatform, requests: list[httpx.Request]) -> None:
    submit(client, "train")
    requests.clear()

    with pytest.raises(ConflictError, match=f"Job 'train' already exists in workspace '{client.workspace}'"):
        submit(client, "train")
    assert len(requests) == 1


def test_a_job_without_steps_is_refused(client: NeMoPlatform) -> None:
    with pytest.raises(UnprocessableEntityError):
        submit(client, "train", platform_spec={"steps": []})

    assert client.jobs.list().data == []


def test_the_subprocess_profile_is_on_offer(client: NeMoPlatform) -> None:
    profiles = client.jobs.list_execution_profiles()

    assert ("subprocess", "default") in [(profile.provider, profile.profile) for profile in profiles]
