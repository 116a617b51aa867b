"""Which tests stay together when pytest-xdist distributes them (`--dist loadgroup`), and in what order.

The tests of a file share its fixtures, and so a process; some files share a running stack, and so a group. What
takes longest begins first. What measures time runs last, in a run of its own: see the Makefile.
"""

from collections import Counter

import pytest

STACKS = {
    "faults-broker": ("faults/test_redis.py", "faults/test_beat.py", "faults/test_postgres.py"),
    "faults-kill": ("faults/test_kill.py", "faults/test_pace.py"),
    "compat": ("compat/test_cli.py", "compat/test_cli_running.py", "compat/test_deletion.py",
               "compat/test_sdk.py", "compat/test_snippets.py"),
    "faults-store": ("faults/test_store.py",),
    "faults-running": ("faults/test_running.py",),
    "runtime": ("runtime/test_worker.py", "runtime/test_cluster_worker.py"),
    "devstack": ("devstack/test_up.py", "devstack/test_procfile.py"),
    "faults-unremovable": ("faults/test_unremovable.py",),
    "compat-files": ("compat/test_large_files.py",),
    "compat-access": ("compat/test_access.py",),
    "server": ("test_server.py",),
}  # fmt: skip
"""Files that need a running stack, by group; the group that takes longest first."""

_GROUPS = {f"tests/{file}": group for group, files in STACKS.items() for file in files}
_ORDER = list(STACKS)


def pytest_configure(config: pytest.Config) -> None:
    """Declare what tests are marked with."""
    config.addinivalue_line("markers", "stack: needs the product's processes running; `make quick` omits it")
    config.addinivalue_line("markers", "timed: measures time, and so runs last and alone")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its group, and put them in order."""
    sizes: Counter[str] = Counter()
    groups: dict[str, str] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        if file in _GROUPS:
            item.add_marker("stack")
        mark = item.get_closest_marker("xdist_group")
        group = mark.args[0] if mark else _GROUPS.get(file, file)
        if not mark:
            item.add_marker(pytest.mark.xdist_group(group))
        groups[item.nodeid] = group
        sizes[group] += 1

    def urgency(item: pytest.Item) -> tuple[int, int, str]:
        group = groups[item.nodeid]
        return (_ORDER.index(group) if group in _ORDER else len(_ORDER), -sizes[group], group)

    items.sort(key=urgency)
