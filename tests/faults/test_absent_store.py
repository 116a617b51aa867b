"""A volume that goes while everything runs: nothing is deleted on paper only, and nothing lands elsewhere."""

from tests.faults.world import World


def test_a_deletion_waits_for_a_store_that_was_unmounted(world: World) -> None:
    doomed, neighbour = world.fill(), world.fill(each=1)
    root = world.stack.blob_root
    away = root.rename(root.with_name("unmounted"))
    file = f"/apis/files/v2/workspaces/{neighbour.name}/filesets/fileset-0/-/new"
    try:
        deletion = world.delete(doomed.name)
        world.stack.wait_until(lambda: "backed_off" in world.events(deletion), "the deletion waits")
        report = world.report(deletion)
        answer = world.stack.client.put(file, content=b"new")
    finally:
        assert not root.exists(), "something was stored where the volume should be"
        away.rename(root)

    assert report["state"] == "DELETING"
    assert "filesets" not in report["deleted"]
    assert {failure["message"].partition(":")[0] for failure in report["failures"]} == {"StoreAbsent"}
    assert answer.status_code == 503
    world.wait_for_state(deletion, "DONE")
    assert world.left_of(doomed.id) == []
    assert world.is_untouched(neighbour)
