"""Secrets through the SDK: kept, listed, changed, used by a job, rotated and deleted."""

import pytest
from conftest import Eventually
from nemo_platform import ConflictError, NeMoPlatform, NotFoundError


def test_a_secret_is_created_listed_retrieved_changed_and_deleted(client: NeMoPlatform) -> None:
    created = client.secrets.create(name="hf-token", value="open sesame", description="d")

    assert (created.name, created.workspace, created.description) == ("hf-token", client.workspace, "d")
    assert client.secrets.retrieve("hf-token") == created
    assert [one.name for one in client.secrets.list()] == ["hf-token"]
    assert client.secrets.access("hf-token").value == "open sesame"
    changed = client.secrets.update("hf-token", value="another")
    assert changed.description == "d"
    assert client.secrets.access("hf-token").value == "another"
    client.secrets.delete("hf-token")
    with pytest.raises(NotFoundError, match=f"Secret {client.workspace}/hf-token not found"):
        client.secrets.retrieve("hf-token")


def test_a_name_is_taken_once(client: NeMoPlatform) -> None:
    client.secrets.create(name="hf-token", value="x")

    with pytest.raises(ConflictError, match="already exists"):
        client.secrets.create(name="hf-token", value="y")


def test_every_page_is_found(client: NeMoPlatform) -> None:
    for number in range(12):
        client.secrets.create(name=f"token-{number}", value="x")

    assert len({one.name for one in client.secrets.list()}) == 12
    assert client.secrets.list(page=2, page_size=5).pagination.total_pages == 3


def test_keys_are_rotated(client: NeMoPlatform) -> None:
    assert client.secrets.admin.rotate_encryption_keys().success


def test_a_job_gets_the_value_as_a_variable(client: NeMoPlatform, eventually: Eventually) -> None:
    client.secrets.create(name="hf-token", value="open sesame")
    step = {
        "name": "main",
        "executor": {"provider": "subprocess", "command": ["sh", "-c", 'echo "got $HF_TOKEN"']},
        "environment": [{"name": "HF_TOKEN", "from_secret": {"name": f"{client.workspace}/hf-token"}}],
    }
    client.jobs.create(name="train", source="tests", spec={}, platform_spec={"steps": [step]})

    eventually(lambda: client.jobs.retrieve("train").status == "completed", "the job ends")
    assert [line.message for line in client.jobs.get_logs("train")] == ["got open sesame"]
    step["environment"][0]["from_secret"]["name"] = "nope"
    with pytest.raises(ConflictError, match="referenced secrets were not found"):
        client.jobs.create(name="other", source="tests", spec={}, platform_spec={"steps": [step]})
