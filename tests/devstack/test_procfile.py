import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from devstack.procfile import read_procfile
from devstack.servers import EmbeddedPostgres, EmbeddedValkey
from tests.devstack.stacks import REPOSITORY, alive, eventually, running
from tests.support.deadlines import DEADLINE_S


def test_a_procfile_is_read_in_its_order_and_other_lines_are_comments(tmp_path: Path) -> None:
    procfile = tmp_path / "Procfile"
    procfile.write_text(
        "# web: not this\n\nrelease: make ready && go\nweb:exec serve --at ${HOST:-here}:80  \n"
    )

    lines = read_procfile(procfile)

    assert list(lines.items()) == [
        ("release", "make ready && go"),
        ("web", "exec serve --at ${HOST:-here}:80"),
    ]


def test_no_program_reads_a_pickle_that_a_job_could_have_written() -> None:
    lines = read_procfile(REPOSITORY / "Procfile")

    assert "--scheduler celery.beat:Scheduler" in lines["beat"]
    assert "persistent" not in lines["flower"].lower()
    assert not any("DATA_DIR" in line for line in lines.values())


def status(port: int) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status") as answer:
        return json.load(answer)


@pytest.mark.long
def test_the_lines_of_the_project_run_the_product(tmp_path: Path) -> None:
    """The whole of `make up`: the project's own Procfile on servers that it is given.

    Without it `make up` is tested with other lines, and these lines by whatever has a running stack.
    """
    postgres, valkey = (
        EmbeddedPostgres(tmp_path / "given", durable=False),
        EmbeddedValkey(tmp_path / "valkey"),
    )
    try:
        variables = {
            "WORKSPACES_DATABASE_URL": postgres.start(),
            "WORKSPACES_BROKER_URL": valkey.start(),
            "WORKSPACES_DATA_DIR": str(tmp_path / "data"),
            "WORKSPACES_SWEEP_SECONDS": "1",
            "WEB_CONCURRENCY": "1",  # each imports the product by itself
        }
        with running(REPOSITORY, output=tmp_path, **variables) as stack:
            with urllib.request.urlopen(f"http://127.0.0.1:{stack.port}/health/ready") as answer:
                assert answer.status == 200
            assert eventually(lambda: stack.printed("cleanup@") and stack.printed("runtime@")), stack.lines
            # Rounds that find nothing are not logged; /status shows that they happen.
            assert eventually(lambda: status(stack.port)["controllers"]["status"]["workspace_cleanup_sweep"])
            assert stack.printed("ready; Ctrl-C stops everything")
            [banner] = [index for index, line in enumerate(stack.lines) if "| ready; Ctrl-C" in line]
            time.sleep(3)
            assert [line for line in stack.lines[banner:] if not line.startswith("stack ")] == []
            processes = stack.descendants()
            stack.process.terminate()

            assert stack.process.wait(DEADLINE_S) == 0
            assert alive(processes) == []
            assert not stack.printed("starting it again"), stack.lines
            assert not stack.printed("plugin"), "a library names its parts at each start"
    finally:
        postgres.discard()
        valkey.discard()
