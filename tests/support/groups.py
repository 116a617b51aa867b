"""Which tests stay together when pytest-xdist distributes them, and in what order.

The tests of a file share its fixtures, and so a process; some files share a running stack, and so a group. What
takes longest begins first. The groups are known by the ids of the tests: `--dist loadgroup` of pytest-xdist 3.8
writes them into ids where pytest 9.2 no longer looks, and distributes every test by itself.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

STACKS = {
    "faults-broker": ("faults/test_redis.py", "faults/test_beat.py", "faults/test_postgres.py",
                      "faults/test_messages.py"),
    "faults-status": ("faults/test_status.py", "faults/test_alerts.py", "faults/test_commands.py"),
    "faults-kill": ("faults/test_kill.py", "faults/test_pace.py", "faults/test_absent_store.py"),
    "faults-store": ("faults/test_store.py",),
    "faults-running": ("faults/test_running.py",),
    "faults-secrecy": ("faults/test_secrecy.py",),
    "faults-unremovable": ("faults/test_unremovable.py",),
    "faults-maintenance": ("faults/test_maintenance.py",),
    "faults-traces": ("faults/test_traces.py",),
    "faults-notify": ("faults/test_notify.py",),
    "console-browser": ("console/browser/test_appearance.py", "console/browser/test_deleting.py",
                        "console/browser/test_foreign.py", "console/browser/test_keyboard.py",
                        "console/browser/test_operating.py", "console/browser/test_outages.py",
                        "console/browser/test_without_script.py"),
    "soak": ("soak/test_soak.py",),
    "compat": ("compat/test_cli.py", "compat/test_cli_running.py", "compat/test_deletion.py",
               "compat/test_sdk.py", "compat/test_snippets.py", "compat/test_parallel.py",
               "compat/test_queries.py", "compat/test_helix.py", "compat/test_newer_cli.py"),
    "compat-access": ("compat/test_access.py",),
    "compat-files": ("compat/test_large_files.py",),
    "runtime": ("runtime/test_worker.py", "runtime/test_cluster_worker.py"),
    "devstack": ("devstack/test_up.py", "devstack/test_procfile.py"),
    "server": ("server/test_worker.py",),
    "bench": ("bench/test_run.py",),
    "server-waiting": ("server/test_waiting.py", "server/test_rejected.py"),
    "server-shared": ("server/test_shared_metrics.py",),
}  # fmt: skip
"""Files that need a running stack, by group."""

LONGEST = (
    "soak", "faults-broker", "schema with authentication", "console-browser", "faults-kill",
    "tests/http/test_hostile_input.py", "compat", "schema without authentication", "faults-store", "faults-status",
    "tests/cleanup/test_state_machine.py",
    "devstack", "bench", "tests/access/test_matrix.py", "runtime", "tests/runtime/test_attempts.py",
    "faults-running", "tests/api/files/test_files.py", "tests/api/files/test_conditions.py",
    "compat-files", "tests/runtime/test_deployments.py",
    "faults-unremovable", "faults-maintenance", "faults-notify", "faults-traces", "faults-secrecy",
    "compat-access", "tests/docs/test_extending.py",
    "server", "server-waiting", "server-shared",
    "tests/devstack/test_servers.py", "tests/storage/test_storage_s3.py", "tests/access/test_tokens.py",
    "tests/access/test_history.py", "tests/api/files/test_store_failures.py", "tests/runtime/test_process.py",
    "tests/test_secrets.py", "tests/cli/test_outcome.py", "tests/distribution/test_wheel.py",
    "tests/devstack/test_recorded_data.py", "tests/server/test_exposure.py", "tests/test_needs.py",
    "tests/postgres/test_pooler.py", "tests/postgres/test_failover.py", "tests/cleanup/test_replay.py",
    "tests/cleanup/test_many.py", "tests/services/test_writers_against_delete.py", "tests/postgres/test_version.py",
    "tests/cleanup/test_engine.py", "tests/storage/test_deletion_log.py", "tests/server/test_rebinding.py",
    "tests/runtime/test_kubernetes.py", "tests/runtime/test_results.py", "tests/test_migrations.py",
    "tests/api/entities/test_lists_at_scale.py", "tests/cli/test_doctor.py", "tests/cleanup/test_bulk.py",
    "tests/compat/test_access_keys.py", "tests/cleanup/test_maintenance.py", "tests/ops/test_ops.py",
    "tests/console/test_sign_in.py", "tests/cli/test_both_ways.py", "tests/console/test_pages.py",
    "tests/health/test_dependencies.py", "tests/test_tracing.py", "tests/access/test_key_authority.py",
    "tests/cli/test_delete.py", "tests/cli/test_bulk.py", "tests/cleanup/test_causes.py",
    "tests/health/test_metrics_at_scale.py", "tests/cleanup/test_rows.py", "tests/cleanup/test_hanging.py",
)  # fmt: skip
"""Groups that take long, the longest first: by turns some that wait and some that compute."""

_GROUPS = {f"tests/{file}": group for group, files in STACKS.items() for file in files}
_CLASSES = {
    # Each in one process, in order: its last test counts the requests of all others.
    "tests/access/test_schema.py::TestWithAuthentication": "schema with authentication",
    "tests/access/test_schema.py::TestWithoutAuthentication": "schema without authentication",
}


def group_of(nodeid: str) -> str:
    """The group of the test of that id: one that is named above, or its file."""
    file, _, rest = nodeid.partition("::")
    return _CLASSES.get(f"{file}::{rest.partition('::')[0]}") or _GROUPS.get(file, file)


_TESTS = Path(__file__).parents[1]
_SLOW = {*_GROUPS, *LONGEST, *(test.partition("::")[0] for test in _CLASSES)}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "long: takes long; `make test` leaves it out, `make long` runs it")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addoption(
        "--quick", action="store_true", help="omit the files that need a running stack or take long"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether to leave out a file: not even imported, it costs a quick run nothing."""
    slow = collection_path.is_relative_to(_TESTS) and f"tests/{collection_path.relative_to(_TESTS)}" in _SLOW
    return True if slow and config.getoption("quick") else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep groups together, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling  # only where tests are distributed

    class Grouped(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return Grouped(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the groups in order."""
    if len({item.nodeid for item in items}) < len(items):
        raise pytest.UsageError("Two tests have the same id: pytest-xdist would run one of them.")
    sizes = Counter(group_of(item.nodeid) for item in items)

    def urgency(item: pytest.Item) -> tuple[int, int, str]:
        group = group_of(item.nodeid)
        place = LONGEST.index(group) if group in LONGEST else len(LONGEST)
        return place, -sizes[group], group

    items.sort(key=urgency)
