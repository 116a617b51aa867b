"""Jobs through the SDK: what is accepted, run, followed, stopped, downloaded and deleted."""

import io
import tarfile

import httpx
import pytest
from conftest import Eventually
from nemo_platform import (
    ConflictError,
    NeMoPlatform,
    NotFoundError,
    UnprocessableEntityError,
)

from tests.support.processes import FEWEST, NewWord, living, stubborn

COMMAND = ["sh", "-c", "echo hello; sleep 600"]


def submit(client: NeMoPlatform, name: str, *, script: str | None = None, **more: object) -> object:
    command = ["sh", "-c", script] if script else COMMAND
    step = {"name": "main", "executor": {"provider": "subprocess", "command": command}, "config": {"seed": 7}}
    job = {"name": name, "source": "tests", "spec": {"epochs": 1}, "platform_spec": {"steps": [step]}}
    return client.jobs.create(**{**job, **more})


def status(client: NeMoPlatform, name: str) -> str | None:
    """The job's status, None once it is gone."""
    try:
        return client.jobs.retrieve(name).status
    except NotFoundError:
        return None


def log(client: NeMoPlatform, name: str) -> list[str]:
    return [line.message for line in client.jobs.get_logs(name, limit=2)]


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


def test_a_job_runs_to_its_end_and_its_log_can_be_followed_meanwhile(
    client: NeMoPlatform, eventually: Eventually
) -> None:
    assert submit(client, "train", script="for i in 1 2 3 4 5; do echo $i; sleep 1; done").status == "created"

    eventually(lambda: "1" in log(client, "train"), "the first line can be read")
    assert status(client, "train") == "active"
    seen = log(client, "train")
    eventually(lambda: len(log(client, "train")) > len(seen), "there is more to read")
    eventually(lambda: status(client, "train") == "completed", "the job completes")

    assert log(client, "train") == ["1", "2", "3", "4", "5"]
    [line, *_] = client.jobs.get_logs("train", step_id="main", limit=1).data
    assert (line.job, line.job_step, line.job_task, line.message) == ("train", "main", "main", "1")
    told = client.jobs.get_status("train")
    assert (told.name, told.status, told.error_details) == ("train", "completed", {})
    assert [(step.name, step.status) for step in told.steps] == [("main", "completed")]
    assert [(task.name, task.status) for task in told.steps[0].tasks] == [("main", "completed")]


def test_a_job_that_fails_says_why(client: NeMoPlatform, eventually: Eventually) -> None:
    submit(client, "train", script="echo oops >&2; exit 3")

    eventually(lambda: status(client, "train") == "error", "the job fails")

    details = client.jobs.retrieve("train").error_details
    assert (details["message"], details["exit_code"]) == ("step 'main' ended with exit code 3", 3)
    assert log(client, "train") == ["oops"]


def test_a_job_is_paused_resumed_and_cancelled(
    client: NeMoPlatform, eventually: Eventually, new_word: NewWord
) -> None:
    word = new_word()
    submit(client, "train", script=stubborn(word))
    eventually(lambda: log(client, "train") == ["ready"] and len(living(word)) >= FEWEST, "the job runs")

    assert client.jobs.pause("train").status == "pausing"
    eventually(lambda: status(client, "train") == "paused", "the runtime confirms the pause")
    assert client.jobs.resume("train").status == "resuming"
    eventually(lambda: status(client, "train") == "active", "the job goes on")
    assert client.jobs.cancel("train").status == "cancelling"
    eventually(lambda: status(client, "train") == "cancelled", "the runtime has seen it end")
    assert living(word) == []

    assert client.jobs.cancel("train").status == "cancelled"


def test_results_are_listed_and_downloaded(client: NeMoPlatform, eventually: Eventually) -> None:
    script = "cd $WORKSPACES_RESULTS_DIR; echo 0.9 > score; mkdir model; echo w > model/weights"
    job = submit(client, "train", script=script)
    eventually(lambda: status(client, "train") == "completed", "the job completes")

    assert sorted(result.name for result in client.jobs.results.list("train").data) == ["model", "score"]
    assert client.jobs.results.download("score", job="train").read() == b"0.9\n"
    with tarfile.open(
        fileobj=io.BytesIO(client.jobs.results.download("model", job="train").read())
    ) as archive:
        assert archive.extractfile("model/weights").read() == b"w\n"

    url = f"{client.workspace}/{job.fileset}#results/score"
    client.jobs.results.create("best", job="train", artifact_url=url, artifact_storage_type="fileset")
    found = client.jobs.results.retrieve("best", job="train")
    assert (found.name, found.job, found.artifact_url) == ("best", job.id, url)


def test_steps_and_tasks_are_reported_and_read(client: NeMoPlatform, eventually: Eventually) -> None:
    submit(client, "train")
    eventually(lambda: log(client, "train") == ["hello"], "the job runs")

    task = client.jobs.tasks.create_or_update(
        "worker-1", job="train", step="main", status="active", status_details={"epoch": 1}
    )
    assert (task.name, task.status) == ("worker-1", "active")
    assert client.jobs.retrieve("train").status_details == {"epoch": 1}
    tasks = client.jobs.tasks.list("main", job="train").data
    assert [task.name for task in tasks] == ["main", "worker-1"]

    assert client.jobs.steps.retrieve("main", job="train").config == {"seed": 7}
    client.jobs.steps.update_status("main", job="train", status="active", status_details={"loss": 2})
    assert client.jobs.steps.retrieve("main", job="train").status_details == {"loss": 2}


def test_a_deleted_job_goes_with_its_fileset_and_frees_its_name(
    client: NeMoPlatform, eventually: Eventually, new_word: NewWord
) -> None:
    word = new_word()
    created = submit(client, "train", script=stubborn(word))
    eventually(lambda: len(living(word)) >= FEWEST, "the job runs")
    client.files.upload_content(content="kept nowhere", remote_path="result", fileset=created.fileset)

    assert client.jobs.delete("train") is None
    eventually(lambda: status(client, "train") is None, "the job goes")
    assert living(word) == []

    with pytest.raises(NotFoundError):
        client.files.filesets.retrieve(created.fileset)
    assert submit(client, "train").id != created.id
    with pytest.raises(NotFoundError, match=f"Job 'other' not found in workspace '{client.workspace}'"):
        client.jobs.delete("other")


def test_jobs_are_listed_by_status_source_and_page(client: NeMoPlatform, eventually: Eventually) -> None:
    submit(client, "ended", source="nightly")
    client.jobs.cancel("ended")
    eventually(lambda: status(client, "ended") == "cancelled", "it ends")
    submit(client, "waiting", source="nightly")
    submit(client, "other", source="manual")
    eventually(
        lambda: (
            {job.name: job.status for job in client.jobs.list()}
            == {"ended": "cancelled", "waiting": "active", "other": "active"}
        ),
        "one job has ended, two run",
    )

    def names(**wanted: object) -> list[str]:
        return sorted(job.name for job in client.jobs.list(filter=wanted, page_size=1))

    assert names(status="cancelled") == ["ended"]
    assert names(status=["active", "cancelled"]) == ["ended", "other", "waiting"]
    assert names(status=["active"], source="nightly") == ["waiting"]
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
