"""Filesets and their files through the SDK, whose client for them refuses any answer that lacks a key."""

from pathlib import Path

import pytest
from nemo_platform import ConflictError, NeMoPlatform, NotFoundError
from nemo_platform_plugin.client.errors import NemoHTTPError
from nemo_platform_plugin.client.errors import NotFoundError as FileNotFound

NOISE = bytes(range(256)) * 4096


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with a deep, an empty, a large and an oddly named file."""
    files = {"a.txt": b"alpha", "empty": b"", "deep/er/noise.bin": NOISE, "deep/ü %41.txt": b"odd"}
    for name, content in files.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "source"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_directory_comes_back_as_it_was_sent(client: NeMoPlatform, source: Path, tmp_path: Path) -> None:
    fileset = client.files.upload(local_path=f"{source}/", fileset="corpus", fileset_auto_create=True)
    client.files.download(fileset="corpus", local_path=str(tmp_path / "target"))

    assert (fileset.name, fileset.workspace) == ("corpus", client.workspace)
    assert contents(tmp_path / "target") == contents(source)


def test_a_directory_of_two_hundred_files_comes_back_as_it_was_sent(
    client: NeMoPlatform, tmp_path: Path
) -> None:
    for number in range(200):
        path = tmp_path / "many" / f"{number % 7}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(2, "big") * number * 10)

    client.files.upload(local_path=f"{tmp_path / 'many'}/", fileset="many", fileset_auto_create=True)
    client.files.download(fileset="many", local_path=str(tmp_path / "back"))

    assert contents(tmp_path / "back") == contents(tmp_path / "many")
    assert len(client.files.list(fileset="many").data) == 200


def test_files_are_listed_by_directory_and_by_pattern(client: NeMoPlatform, source: Path) -> None:
    client.files.upload(local_path=f"{source}/", fileset="corpus", fileset_auto_create=True)

    def listed(remote_path: str = "") -> dict[str, int]:
        return {
            one.path: one.size for one in client.files.list(fileset="corpus", remote_path=remote_path).data
        }

    everything = {path: len(content) for path, content in contents(source).items()}
    assert listed() == everything
    assert listed("deep/") == {path: size for path, size in everything.items() if path.startswith("deep/")}
    assert listed("deep/er/noise.bin") == {"deep/er/noise.bin": len(NOISE)}
    assert listed("*.txt") == {"a.txt": 5}
    assert listed("dee") == {}


def test_a_file_knows_where_it_is(client: NeMoPlatform) -> None:
    client.files.upload_content(
        content="hello", remote_path="d/a.txt", fileset="corpus", fileset_auto_create=True
    )

    [file] = client.files.list(fileset="corpus").data

    assert file.file_ref == f"{client.workspace}/corpus#d/a.txt"
    assert file.file_url == f"/apis/files/v2/workspaces/{client.workspace}/filesets/corpus/-/d/a.txt"
    assert client.files.download_content(remote_path=file.file_ref) == b"hello"


def test_content_can_be_streamed_without_knowing_its_length(client: NeMoPlatform) -> None:
    pieces = [NOISE[start : start + 100_000] for start in range(0, len(NOISE), 100_000)]

    client.files.upload_content(
        content=iter(pieces), remote_path="noise", fileset="corpus", fileset_auto_create=True
    )

    assert client.files.download_content(remote_path="noise", fileset="corpus") == NOISE


def test_an_upload_replaces_the_whole_file(client: NeMoPlatform) -> None:
    for content in (b"a long first version", b"short"):
        client.files.upload_content(
            content=content, remote_path="a", fileset="corpus", fileset_auto_create=True
        )

    assert client.files.download_content(remote_path="a", fileset="corpus") == b"short"


@pytest.mark.parametrize(
    ("start", "end"), [(0, 10), (5, 6), (1000, 200_000), (len(NOISE) - 7, None), (0, len(NOISE) + 100)]
)
def test_ranges_are_read_without_the_rest(client: NeMoPlatform, start: int, end: int | None) -> None:
    client.files.upload_content(
        content=NOISE, remote_path="noise", fileset="corpus", fileset_auto_create=True
    )

    assert client.files.fsspec.cat_file("corpus#noise", start=start, end=end) == NOISE[start:end]


def test_a_file_opens_like_a_local_one(client: NeMoPlatform) -> None:
    client.files.upload_content(
        content=NOISE, remote_path="noise", fileset="corpus", fileset_auto_create=True
    )

    with client.files.fsspec.open(f"{client.workspace}/corpus#noise", "rb", block_size=10_000) as file:
        file.seek(123_456)
        piece = file.read(1000)

    assert piece == NOISE[123_456:124_456]


def test_a_deleted_file_is_gone_and_its_neighbour_stays(client: NeMoPlatform) -> None:
    for name in ("a", "b"):
        client.files.upload_content(
            content=name, remote_path=name, fileset="corpus", fileset_auto_create=True
        )

    client.files.delete(remote_path="a", fileset="corpus")

    assert [one.path for one in client.files.list(fileset="corpus").data] == ["b"]
    with pytest.raises(FileNotFound, match=f"File 'a' not found in fileset '{client.workspace}/corpus'"):
        client.files.download_content(remote_path="a", fileset="corpus")


@pytest.mark.parametrize("path", ["../escape", "d/../../escape", "/../../escape", "..", "d/.."])
def test_a_path_cannot_leave_its_fileset(client: NeMoPlatform, path: str) -> None:
    client.files.upload_content(content="safe", remote_path="d/a", fileset="corpus", fileset_auto_create=True)

    with pytest.raises(NemoHTTPError) as refused:
        client.files.client.upload_file(name="corpus", path=path, content=b"x")

    assert 400 <= refused.value.status_code < 500
    assert [one.path for one in client.files.list(fileset="corpus").data] == ["d/a"]


def test_filesets_live_and_die(client: NeMoPlatform) -> None:
    filesets = client.files.filesets
    created = filesets.create(
        name="corpus.v1",
        description="d",
        purpose="dataset",
        metadata={"dataset": {}},
        custom_fields={"k": [1]},
    )
    assert filesets.create(name="corpus.v1", exist_ok=True).id == created.id
    with pytest.raises(ConflictError, match=f"Fileset '{client.workspace}/corpus.v1' already exists"):
        filesets.create(name="corpus.v1")
    assert (created.purpose, created.custom_fields, created.storage.type) == ("dataset", {"k": [1]}, "local")

    updated = filesets.update("corpus.v1", description="new")
    assert (updated.description, updated.purpose) == ("new", "dataset")

    assert filesets.delete("corpus.v1").id == created.id
    with pytest.raises(NotFoundError):
        filesets.retrieve("corpus.v1")


def test_filesets_are_paged_and_filtered_by_both_clients(client: NeMoPlatform) -> None:
    for number in range(5):
        purpose = "model" if number % 2 else "dataset"
        client.files.filesets.create(name=f"set-{number}", purpose=purpose)

    models = client.files.filesets.list(filter={"purpose": "model"}, sort="name", page_size=1)
    everything = client.files.client.list_filesets(query_params={"page_size": 2, "sort": "name"})

    assert [one.name for one in models] == ["set-1", "set-3"]
    assert [one.name for one in everything.items()] == [f"set-{number}" for number in range(5)]


def test_a_successor_of_the_same_name_inherits_no_bytes(client: NeMoPlatform) -> None:
    client.files.upload_content(content="old", remote_path="a", fileset="corpus", fileset_auto_create=True)
    client.files.filesets.delete("corpus")

    client.files.filesets.create(name="corpus")

    assert client.files.list(fileset="corpus").data == []
