"""The hub: pinned to a commit, patient with rate limits, and one clear error when out of reach."""

import io
import pickle
import tarfile
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from time import time

import pytest
from coyo_files import write_coyo
from fake_hub import COMMIT, MOVED, Hub, serve

from pinxit.data.row import Row, Source
from pinxit.data.sources.catalogue import SOURCES, open_source
from pinxit.data.sources.hub import LONGEST_WAIT, is_hub_name, parse_hub_path, wait_of


def every(source: Source) -> list[Row]:
    """All rows, read by a copy of the source, as workers do."""
    copy = pickle.loads(pickle.dumps(source))
    return [row for unit in source.units() for row in copy.read(unit)]


def forget() -> None:
    """The hub's client keeps listings and its connection: a new hub must not see them."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.utils import close_session

    HfFileSystem.clear_instance_cache()
    close_session()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in [
            ("0.jpg", b"\xff\xd8"),
            ("0.txt", b"in a tar"),
            ("big.bin", bytes(9000)),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    files = {
        "README.md": b"about",
        "data/part-00000.parquet": write_coyo(tmp_path / "0", 30, group=10).read_bytes(),
        "data/part-00001.parquet": write_coyo(tmp_path / "1", 5).read_bytes(),
        "tars/train-0000.tar": tar.getvalue(),
        "tars/test-0000.tar": b"held out",
        "images/train/0.png": b"\x89PNG",
        "images/train/0.txt": b"a picture",
    }
    hub = Hub(files)
    with serve(hub) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        forget()
        yield hub
        forget()


def test_a_branch_becomes_a_commit_when_opened(hub: Hub):
    source = open_source("coyo", path="owner/set")
    assert source.revision == COMMIT
    units = source.units()
    assert [unit.path for unit in units] == [
        f"hf://datasets/owner/set@{COMMIT}/data/part-0000{i}.parquet" for i in range(2)
    ]
    hub.branches["main"] = MOVED  # from now on
    hub.branches["old"] = COMMIT
    rows = every(source)
    assert [row.url for row in rows[:2]] == ["http://images.test/0.jpg", "http://images.test/1.jpg"]
    assert len(rows) == 35
    assert not any(MOVED in path or "resolve/main" in path for path in hub.asked)
    forget()
    assert open_source("coyo", path="owner/set").revision == MOVED
    assert open_source("coyo", path="owner/set@old").revision == COMMIT
    assert open_source("coyo", path="owner/set", revision="old").revision == COMMIT


def test_parts_of_a_repository(hub: Hub):
    glob = open_source("coyo", path="hf://datasets/owner/set/data/*1.parquet")
    one = open_source("coyo", path=f"hf://datasets/owner/set@{COMMIT}/data/part-00001.parquet")
    assert len(every(glob)) == len(every(one)) == 5
    (row,) = every(open_source("hf", path="hf://datasets/owner/set/tars"))
    assert row.caption == "in a tar" and row.image == b"\xff\xd8"
    source = open_source("folder", path="hf://datasets/owner/set/images")
    assert source.revision == COMMIT
    (row,) = every(source)
    assert row.caption == "a picture" and row.image == b"\x89PNG"


def test_plain_http(hub: Hub):
    hub.files["cc12m.tsv"] = "".join(f"http://a/{i}\tnumber {i}\n" for i in range(7)).encode()
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/datasets/owner/set/resolve/{COMMIT}/cc12m.tsv"
    source = open_source("cc12m", path=url, unit_rows=3)
    assert [row.caption for row in every(source)] == [f"number {i}" for i in range(7)]
    with pytest.raises(ValueError, match=r"does not exist|cannot be listed"):
        open_source("cc12m", path=url.replace("cc12m", "absent"))


def test_rate_limits_are_waited_out(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    hub.busy = [(429, {"Retry_After": "7"}), (503, {}), (429, {"Retry_After": "9999"})]
    source = open_source("coyo", path="owner/set")
    assert source.revision == COMMIT and 7.0 in waits and LONGEST_WAIT in waits
    hub.busy = [(429, {"Retry_After": "3"})]
    assert len(every(source)) == 35


def test_wait_of():
    assert [wait_of(None, attempt) for attempt in range(4)] == [1, 2, 4, 8]
    assert wait_of("2.5", 0) == 2.5 and wait_of("-4", 0) == 0 and wait_of("soon", 3) == 8
    assert wait_of("inf", 0) == LONGEST_WAIT
    assert 50 < wait_of(formatdate(time() + 60, usegmt=True), 0) <= 60


@pytest.mark.parametrize(
    ("code", "headers", "said"),
    [
        (
            403,
            {"X_Error_Code": "GatedRepo"},
            r"is gated: accept its conditions at https://.*log in",
        ),
        (404, {"X_Error_Code": "RepoNotFound"}, "does not exist, or is private"),
        (404, {"X_Error_Code": "RevisionNotFound"}, "has no revision 'v2'"),
    ],
)
def test_refusals_say_what_to_do(hub: Hub, code: int, headers: dict[str, str], said: str):
    hub.refuse = (code, headers)
    with pytest.raises(ValueError, match=said) as error:
        open_source("coyo", path="owner/set", revision="v2")
    assert "set --dataset_path to a local file, folder or glob: COYO-format" in str(error.value)


def test_what_a_repository_lacks_is_said(hub: Hub):
    with pytest.raises(ValueError, match=r"holds no \.tsv.*it holds README\.md, data/part-00000"):
        open_source("tsv", path="owner/set")
    with pytest.raises(ValueError, match=r"(has no 'nowhere'|holds no files)"):
        open_source("coyo", path="hf://datasets/owner/set/nowhere")
    with pytest.raises(ValueError, match=r"no column for image "):
        open_source("hf", path="hf://datasets/owner/set/data")


@pytest.mark.parametrize("name", ["coyo", "laion2b", "laion-art", "cc12m", "monet"])
def test_without_a_network_one_clear_error(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    forget()
    with pytest.raises(ValueError) as error:
        open_source(name)
    said = str(error.value)
    assert "\n" not in said and len(said) < 700
    assert "on the Hugging Face hub cannot be reached" in said
    assert "set --dataset_path to a local file, folder or glob" in said
    assert "hf download" in said and "--repo-type dataset" in said
    forget()


def test_offline_mode_says_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    forget()
    with pytest.raises(
        ValueError, match=r"kakaobrain/coyo-700m .*cannot be reached.*--dataset_path"
    ):
        open_source("coyo")
    forget()


def test_a_file_that_vanishes_is_an_error_of_its_unit(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    source = open_source("coyo", path="owner/set")
    unit = source.units()[1]
    hub.refuse = (500, {})
    forget()
    with pytest.raises(OSError, match="500"):
        list(source.read(unit))


def test_names():
    where = parse_hub_path("hf://datasets/a/b@refs/convert/parquet/default/*.parquet")
    assert where is not None
    assert (where.repo, where.revision) == ("a/b", "refs/convert/parquet")
    assert where.inside == "default/*.parquet"
    assert parse_hub_path("a/b", "v1") == parse_hub_path("a/b@v1")
    with pytest.raises(ValueError, match="'v2' contradicts 'v1' in the path"):
        parse_hub_path("a/b@v1", "v2")
    assert parse_hub_path("plain") is None and parse_hub_path("/a/b") is None
    assert is_hub_name("a/b") and is_hub_name("a/b@v1")
    assert not any(is_hub_name(name) for name in ("a", "/a/b", "a/b/c", "../b", "./a", "a/b.c/"))
    assert {"coyo", "laion2b", "laion-art", "cc12m", "monet", "hf"} <= SOURCES.keys()
