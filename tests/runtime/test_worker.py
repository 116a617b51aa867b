"""Jobs on a real runtime worker, submitted over HTTP, against the process table, also after the worker has died."""

import logging
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from sqlalchemy import create_engine, delete
from sqlalchemy.pool import NullPool

from app.config import Settings
from app.models import Job, JobLog
from app.runtime.processes.leaked_processes import RUN_VARIABLE
from tests.runtime.runs import STUBBORN
from tests.support.deadlines import DEADLINE_S
from tests.support.processes import FEWEST, NewWord, living, stubborn, stubborn_server
from tests.support.stack import CHECKOUT, Part, Stack
from workers.celery_app import configure

SETTINGS: dict[str, Any] = {
    "runtime_lease_seconds": 3,
    "runtime_poll_seconds": 0.1,
    "stop_grace_seconds": 1,
    "sweep_seconds": 1,
    "requeue_after_seconds": 1,
    "waiting_poll_min_seconds": 0.2,
    "waiting_poll_max_seconds": 0.5,
    "runtime_host": "here",
}
# A line for each poll of a test would hide the logs of the stack.
logging.getLogger("httpx").setLevel(logging.WARNING)

WORKSPACES = "/apis/entities/v2/workspaces"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("runtime"), **SETTINGS) as stack:
        yield stack


@pytest.fixture
def jobs(stack: Stack, request: pytest.FixtureRequest) -> Iterator["Jobs"]:
    for name in ("runtime", "beat"):
        if not stack.running(name):
            stack.start(name)
    jobs = Jobs(stack, f"w-{abs(hash(request.node.name))}")
    yield jobs
    for job_id in jobs.ids:
        for process in jobs.processes(job_id):
            process.kill()


def test_a_shutdown_by_celery_ends_the_supervisors_and_the_worker(jobs: "Jobs", new_word: NewWord) -> None:
    """It comes by the broker, without a signal."""
    word = new_word()
    job_id = jobs.submit("sleeper", f"sleep {word}")
    jobs.stack.wait_until(lambda: living(word), "the job runs")
    [worker] = jobs.stack.running("runtime")

    with configure(Settings(broker_url=jobs.stack.broker_url)) as celery:
        celery.control.shutdown(destination=[f"runtime@{socket.gethostname()}"])

    jobs.stack.wait_until(lambda: not worker.is_alive, "the runtime worker has ended")
    assert worker.process.poll() == 0
    assert living(word) == []
    assert job_id
    assert jobs.get("sleeper/status")["status"] == "error"


class Jobs:
    """The jobs of a workspace of their own."""

    def __init__(self, stack: Stack, workspace: str) -> None:
        self.stack, self.workspace, self.ids = stack, workspace, list[UUID]()
        self.base = f"/apis/jobs/v2/workspaces/{workspace}/jobs"
        made = stack.client.post(WORKSPACES, json={"name": workspace})
        assert made.status_code == 201, made.text
        self.workspace_id: str = made.json()["id"]

    def submit(self, name: str, script: str) -> UUID:
        step = {"name": "main", "executor": {"provider": "subprocess", "command": ["sh", "-c", script]}}
        body = {"name": name, "source": "tests", "spec": {}, "platform_spec": {"steps": [step]}}
        answer = self.stack.client.post(self.base, json=body)
        assert answer.status_code == 201, answer.text
        self.ids.append(UUID(answer.json()["id"]))
        return self.ids[-1]

    def get(self, path: str) -> Any:
        answer = self.stack.client.get(f"{self.base}/{path}")
        return answer.json() if answer.is_success else None

    def post(self, path: str) -> Any:
        return self.stack.client.post(f"{self.base}/{path}").json()

    def log(self, name: str) -> list[str]:
        return [line["message"] for line in self.get(f"{name}/logs?limit=1000")["data"]]

    def wait_for(self, name: str, status: str) -> None:
        self.stack.wait_until(lambda: (self.get(name) or {}).get("status") == status, f"{name} is {status}")

    def wait_for_line(self, name: str, line: str) -> None:
        self.stack.wait_until(lambda: line in self.log(name), f"{name} prints {line}")

    def deploy(self, name: str, command: list[str]) -> None:
        base = f"/apis/models/v2/workspaces/{self.workspace}"
        executor = {"gpu": 0, "health_check_path": "/", "override_config": {"command": command}}
        config = {"name": name, "engine": "generic", "model_spec": {}, "executor_config": executor}
        assert self.stack.client.post(f"{base}/deployment-configs", json=config).status_code == 201
        answer = self.stack.client.post(f"{base}/deployments", json={"name": name, "config": name})
        assert answer.status_code == 201, answer.text
        self.ids.append(UUID(answer.json()["id"]))

    def deployment(self, name: str) -> dict[str, Any]:
        answer = self.stack.client.get(f"/apis/models/v2/workspaces/{self.workspace}/deployments/{name}")
        assert answer.is_success, answer.text
        return dict(answer.json())

    def wait_for_deployment(self, name: str, status: str) -> None:
        self.stack.wait_until(lambda: self.deployment(name)["status"] == status, f"{name} is {status}")

    def serves(self, name: str) -> bool:
        found = self.deployment(name)
        try:
            return found["status"] == "READY" and httpx.get(found["status_message"].split()[-1]).is_success
        except httpx.TransportError:
            return False

    @staticmethod
    def processes(job_id: UUID) -> list[psutil.Process]:
        """The processes whose environment names the job, read from the kernel."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.environ().get(RUN_VARIABLE) == str(job_id)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def stored(self) -> list[Path]:
        """The stored files of the workspace."""
        found = self.stack.blob_root.rglob("*")
        return [path for path in found if path.is_file() and self.workspace_id in path.parts]

    def is_nothing_left(self) -> bool:
        return not any(self.processes(one) or self.stack.directories_of(one) for one in self.ids)


def reapers_of(worker: Part) -> list[psutil.Process]:
    """The reapers below a worker. Processes of jobs may end meanwhile; they are skipped."""
    found = []
    for process in psutil.Process(worker.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any("reaper.py" in part for part in process.cmdline()):
                found.append(process)
    return found


def test_the_log_of_a_job_can_be_followed_while_it_runs_and_its_result_downloaded(jobs: Jobs) -> None:
    jobs.submit(
        "train",
        "echo 1; while [ ! -e go ]; do sleep 0.1; done; echo 2; echo 0.9 > $WORKSPACES_RESULTS_DIR/score",
    )

    jobs.wait_for_line("train", "1")
    assert (jobs.get("train")["status"], jobs.log("train")) == ("active", ["1"])
    [directory] = jobs.stack.directories_of(jobs.ids[0])
    (directory / "go").touch()
    jobs.wait_for("train", "completed")

    assert jobs.log("train") == ["1", "2"]
    assert jobs.stack.client.get(f"{jobs.base}/train/results/score/download").text == "0.9\n"
    assert jobs.is_nothing_left()


def test_a_stubborn_job_is_cancelled_and_deleted_with_all_its_processes(jobs: Jobs) -> None:
    for name in ("cancelled", "deleted"):
        jobs.submit(name, STUBBORN + "while :; do sleep 0.1; done")
        jobs.wait_for_line(name, "ready")

    assert jobs.post("cancelled/cancel")["status"] == "cancelling"
    assert jobs.stack.client.delete(f"{jobs.base}/deleted").status_code == 204
    jobs.wait_for("cancelled", "cancelled")
    assert jobs.processes(jobs.ids[0]) == []
    jobs.stack.wait_until(lambda: jobs.get("deleted") is None, "the deleted job is gone")

    assert jobs.is_nothing_left()


def test_a_job_that_kills_its_reaper_and_clears_its_environment_does_not_escape(
    jobs: Jobs, new_word: NewWord
) -> None:
    token = new_word()
    escape = f"(env -i setsid sh -c 'touch out; sleep {token}; :' &); until [ -e out ]; do sleep 0.1; done; "
    jobs.submit("escaping", f"{escape} kill -9 $PPID; sleep 600")

    jobs.wait_for("escaping", "error")

    assert jobs.get("escaping")["error_details"]["message"] == "step 'main' was ended by signal 9"
    assert living(token) == []
    assert jobs.is_nothing_left()


def kill_with_reapers(worker: Part) -> None:
    """Kill a worker and its reapers, so that nobody ends the processes of its jobs."""
    worker.process.send_signal(signal.SIGSTOP)
    try:
        for reaper in reapers_of(worker):
            reaper.kill()
    finally:
        worker.kill()  # In any case: a worker that stays stopped would fail every later test.


def test_of_a_worker_that_is_killed_nothing_lives_and_its_deployments_serve_again(
    jobs: Jobs, new_word: NewWord
) -> None:
    word, serving = new_word(), new_word()
    jobs.submit("train", stubborn(word))
    jobs.deploy("chat", stubborn_server(serving))
    jobs.stack.wait_until(lambda: len(living(word)) >= FEWEST, "the job runs")
    jobs.wait_for_deployment("chat", "READY")
    before = set(living(serving))

    [worker] = jobs.stack.running("runtime")
    worker.process.kill()
    worker.process.wait()

    # Without any worker: the kernel signals the reapers that their parent has died.
    jobs.stack.wait_until(lambda: living(word) + living(serving) == [], "nothing of them lives")
    jobs.wait_for("train", "error")
    assert jobs.get("train")["error_details"]["message"] == "runner lost: the job was active on host 'here'"
    jobs.wait_for_deployment("chat", "LOST")
    assert jobs.deployment("chat")["status_message"] == "runner lost on host 'here'"

    jobs.stack.start("runtime")
    jobs.wait_for_deployment("chat", "READY")
    assert jobs.serves("chat")
    assert len(living(serving)) == len(before)
    assert living(word) == []
    assert jobs.get("train")["status"] == "error"


def test_what_was_left_on_a_host_is_looked_after_at_the_start_of_its_worker_also_while_nobody_sweeps(
    jobs: Jobs, new_word: NewWord
) -> None:
    word, serving = new_word(), new_word()
    jobs.submit("train", f"trap '' TERM; (setsid sh -c 'sleep {word}; :' &); sleep {word}; :")
    jobs.deploy("chat", stubborn_server(serving))
    jobs.stack.wait_until(lambda: len(living(word)) >= 5, "the job runs")
    jobs.wait_for_deployment("chat", "READY")
    for beat in jobs.stack.running("beat"):
        beat.kill()

    [worker] = jobs.stack.running("runtime")
    kill_with_reapers(worker)
    left = {*living(word), *living(serving)}
    assert len(left) >= 4 + 2, "without their reapers nobody ends them"

    jobs.stack.start("runtime")
    jobs.wait_for("train", "error")
    assert jobs.get("train")["error_details"]["message"] == "runner lost: the job was active on host 'here'"
    jobs.stack.wait_until(lambda: not left & set(living(word) + living(serving)), "what was left is gone")
    jobs.stack.wait_until(lambda: jobs.serves("chat"), "it serves again")
    assert jobs.stack.running("beat") == []


def test_of_a_worker_that_is_killed_the_jobs_are_lost_and_the_next_one_sees_that_nothing_is_left(
    jobs: Jobs,
) -> None:
    for name in ("kept", "deleted"):
        jobs.submit(name, STUBBORN + "while :; do sleep 0.1; done")
        jobs.wait_for_line(name, "ready")

    [worker] = jobs.stack.running("runtime")
    kill_with_reapers(worker)
    jobs.wait_for("kept", "error")
    assert jobs.get("kept")["error_details"]["message"] == "runner lost: the job was active on host 'here'"
    assert jobs.stack.client.delete(f"{jobs.base}/deleted").status_code == 204
    assert jobs.processes(jobs.ids[0]) != []
    assert jobs.get("deleted") is not None

    jobs.stack.start("runtime")
    jobs.stack.wait_until(jobs.is_nothing_left, "the next worker has killed what was left")
    jobs.stack.wait_until(lambda: jobs.get("deleted") is None, "the deleted job is gone")
    assert jobs.get("kept")["status"] == "error"


def test_what_is_left_of_a_job_whose_row_is_gone_goes_with_the_next_start_of_its_host(jobs: Jobs) -> None:
    job_id = jobs.submit("skipped", STUBBORN + "while :; do sleep 0.1; done")
    jobs.wait_for_line("skipped", "ready")
    [worker] = jobs.stack.running("runtime")
    kill_with_reapers(worker)
    with create_engine(jobs.stack.database_url, poolclass=NullPool).begin() as connection:
        connection.execute(delete(JobLog).where(JobLog.job_id == job_id))
        connection.execute(delete(Job).where(Job.id == job_id))
    assert jobs.processes(job_id) != []

    jobs.stack.start("runtime")

    jobs.stack.wait_until(jobs.is_nothing_left, "the next worker has killed and removed what was left")


def test_a_worker_that_is_stopped_stops_its_jobs_and_leaves_nothing(jobs: Jobs) -> None:
    jobs.submit("train", STUBBORN + "while :; do sleep 0.1; done")
    jobs.wait_for_line("train", "ready")

    [worker] = jobs.stack.running("runtime")
    worker.stop()

    message = jobs.get("train")["error_details"]["message"]
    assert message.startswith("the runtime worker was stopped, which ends its jobs")
    assert jobs.is_nothing_left()


def test_a_workspace_is_deleted_with_the_jobs_that_run_in_it(jobs: Jobs) -> None:
    scripts = [STUBBORN + "while :; do sleep 0.1; done", "echo ready; sleep 600"]
    for number in range(8):
        jobs.submit(f"job-{number}", scripts[number % 2])
    for number in range(8):
        jobs.wait_for_line(f"job-{number}", "ready")
    jobs.post("job-1/pause")
    files = f"/apis/files/v2/workspaces/{jobs.workspace}/filesets/job-fileset-job-0/-/weights.bin"
    assert jobs.stack.client.put(files, content=b"weights").is_success
    assert [path.name for path in jobs.stored()] == ["weights.bin"]

    answer = jobs.stack.client.delete(f"{WORKSPACES}/{jobs.workspace}")
    report = f"/apis/entities/v2/deletions/{answer.json()['deletion_id']}"
    jobs.stack.wait_until(lambda: jobs.stack.client.get(report).json()["state"] == "DONE", "DONE")

    assert jobs.is_nothing_left()
    assert jobs.stack.client.get(report).json()["deleted"]["jobs"] == 8
    assert jobs.stored() == []


@pytest.mark.long  # a stack of its own for what tests/runtime/test_slots.py shows in one process
def test_what_was_left_on_a_host_does_not_wait_for_a_free_slot(tmp_path: Path, new_word: NewWord) -> None:
    with Stack(tmp_path, **{**SETTINGS, "runtime_job_slots": 1}) as stack:
        jobs = Jobs(stack, "crowded")
        word, waiting = new_word(), new_word()
        jobs.submit("lost", f"trap '' TERM; (setsid sh -c 'sleep {word}; :' &); sleep {word}; :")
        stack.wait_until(lambda: len(living(word)) >= 5, "the job runs")
        for number in range(2):
            jobs.submit(f"waiting-{number}", f"sleep {waiting}; :")
        [worker] = stack.running("runtime")
        kill_with_reapers(worker)
        assert living(word) != []

        stack.start("runtime")
        stack.wait_until(lambda: living(waiting), "another job has the only slot")
        stack.wait_until(lambda: living(word) == [], "what was left is gone")
        jobs.wait_for("lost", "error")
        assert stack.client.delete(f"{jobs.base}/lost").status_code == 204


def test_a_restart_of_a_worker_takes_up_its_deployments_before_jobs_that_wait(
    tmp_path: Path, new_word: NewWord
) -> None:
    """It drains: the deployments serve until the job that runs has ended, and are back at once."""
    drains = {"runtime_on_stop": "drain", "runtime_drain_seconds": 300, "runtime_job_slots": 1}
    with Stack(tmp_path, **{**SETTINGS, **drains}) as stack:
        jobs = Jobs(stack, "busy")
        served, waiting = new_word(), new_word()
        for number in range(2):
            jobs.deploy(f"chat-{number}", stubborn_server(served))
            jobs.wait_for_deployment(f"chat-{number}", "READY")
        running = jobs.submit("running", "echo ready; until [ -e go ]; do sleep 0.1; done")
        jobs.wait_for_line("running", "ready")
        for number in range(4):
            jobs.submit(f"waiting-{number}", f"sleep {waiting}")

        [worker] = stack.running("runtime")
        worker.process.send_signal(signal.SIGTERM)
        stack.wait_until(lambda: "runtime" in jobs.get("running")["status_details"], "the owner is told")
        assert [jobs.serves(f"chat-{number}") for number in range(2)] == [True, True]
        [directory] = stack.directories_of(running)
        (directory / "go").touch()
        worker.process.wait(DEADLINE_S)
        assert jobs.get("running")["status"] == "completed"

        stack.start("runtime")
        stack.wait_until(lambda: living(waiting), "a job that waited has the slot")
        for number in range(2):
            jobs.wait_for_deployment(f"chat-{number}", "READY")
        statuses = sorted(jobs.get(f"waiting-{number}")["status"] for number in range(4))
        assert statuses == ["active", "created", "created", "created"]


def test_the_guide_of_jobs_does_what_it_says(stack: Stack, tmp_path: Path) -> None:
    guide = (CHECKOUT / "docs" / "jobs.md").read_text()
    lines = [
        line for block in re.findall(r"```console\n(.*?)```", guide, re.DOTALL) for line in block.splitlines()
    ]
    commands = [line[2:] for line in lines if line.startswith(("$ ", "> "))]
    commands[0] = commands[0].replace("http://127.0.0.1:8080", stack.api_url)

    done = subprocess.run(
        ["bash", "-e"],
        check=False,
        input="\n".join(commands),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [line for line in lines if not line.startswith(("$ ", "> "))]


@pytest.mark.long  # a stack of its own for what tests/runtime/test_slots.py shows in one process
def test_a_worker_without_a_free_slot_keeps_no_job_from_one_that_has(tmp_path: Path) -> None:
    alone = {**SETTINGS, "runtime_job_slots": 1}
    with Stack(tmp_path, **alone) as stack:
        jobs = Jobs(stack, "shared")
        busy = jobs.submit("busy", "echo ready; until [ -e go ]; do sleep 0.1; done")
        jobs.wait_for_line("busy", "ready")
        for number in range(3):
            jobs.submit(f"next-{number}", "true")

        stack.start("runtime", WORKSPACES_RUNTIME_HOST="there")

        for number in range(3):
            jobs.wait_for(f"next-{number}", "completed")
        assert jobs.get("busy")["status"] == "active"
        [directory] = stack.directories_of(busy)
        (directory / "go").touch()
        jobs.wait_for("busy", "completed")
        jobs.submit("after", "true")
        jobs.wait_for("after", "completed")
