"""The peer's SDK with many transfers at once: none is told to come again later, because its uploads cannot."""

import pytest

from tests.compat.nemo import HERE, Nemo


@pytest.mark.long  # its short form is test_more_transfers_than_places_all_succeed in tests/server/test_waiting.py
def test_four_clients_with_sixteen_workers_each_send_and_fetch_all_their_files(
    nemo: Nemo, workspace: str
) -> None:
    done = nemo.run(HERE / "scripts" / "parallel.py", nemo.base_url, workspace)

    assert done.returncode == 0, done.stdout + done.stderr
