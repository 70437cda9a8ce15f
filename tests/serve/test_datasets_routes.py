"""The routes of prepared datasets: figures, pages of pictures and rows, damage, bad input."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import prepared_datasets as made
import pytest
from PIL import Image
from studio import running_studio

from pinxit.serve.datasets import search
from pinxit.serve.datasets.folders import find_datasets
from pinxit.serve.datasets.overview import is_running
from pinxit.serve.datasets.shard_pictures import ShardPictures
from pinxit.serve.datasets.unit_totals import UnitTotals


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with datasets and a run."""
    root = tmp_path_factory.mktemp("datasets")
    made.make_datasets(root)
    return root


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[httpx.Client]:
    """A client of a studio that shows the datasets."""
    options = {"runs": str(root / "runs"), "out": str(root / "outputs")}
    with running_studio(data=(str(root / "data"), str(root / "absent")), **options) as studio:
        base = f"{studio.url}/studio/datasets"
        with httpx.Client(base_url=base, timeout=60) as client:
            yield client


def listed(client: httpx.Client) -> dict:
    """Returns the list of datasets."""
    return client.get(str(client.base_url).rstrip("/")).json()


def rows_of(client: httpx.Client, path: str, **query: object) -> list[dict]:
    """Returns the rows of all pages."""
    rows, start = [], 0
    for _ in range(200):
        answer = client.get(path, params={**query, "start": start})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        rows += page["rows"]
        start = page["next"]
        if not page["more"]:
            return rows
    raise AssertionError("the pages do not end")


def test_the_list_has_every_dataset_and_says_what_is_wrong(client, root):
    answer = listed(client)
    by_name = {each["name"]: each for each in answer["datasets"]}
    assert set(by_name) == {"web", "running", "damaged", "evil", "broken"}
    assert answer["missing"] == [str(root / "absent")]
    web = by_name["web"]
    assert (
        web["state"] == "finished" and web["rows"] == sum(made.SIZES) and web["runs"] == ["first"]
    )
    assert 0 < web["kept"] < web["rows"] and web["bytes"] > 10_000
    assert by_name["running"]["state"] == "preparing" and by_name["running"]["kept"] == web["kept"]
    assert by_name["broken"]["state"] == "damaged" and "images.json" in by_name["broken"]["problem"]


def test_one_dataset_has_the_figures_of_its_report(client, root):
    one = client.get("/web").json()
    report = (root / "data" / "web" / "report.html").read_text()
    assert one["sentence"] in report and "120 rows in 3 units" in one["sentence"]
    assert sum(each["rows"] for each in one["outcomes"]) == 120
    assert {each["kind"] for each in one["outcomes"]} == {"kept", "dropped", "temporary", "failed"}
    timeout = next(each for each in one["outcomes"] if each["status"] == "timeout")
    assert timeout["heals"] and timeout["meaning"] in report
    assert one["retry"]["command"].endswith("--retry_failed 1")
    assert one["command"].startswith("pinxit prepare toy --out")
    scores = {each["name"]: each for each in one["scores"]}
    mark = scores["watermark"]
    assert mark["limit"] == 0.5 and mark["passed"] + mark["rejected"] == 120 and mark["is_exact"]
    assert mark["rejected"] == sum(1 for number in range(120) if number % 7 == 3)
    assert scores["words"]["keeps"] == "above" and sum(scores["aesthetic"]["counts"]) == 120
    assert one["settings"]["content"]["filters"]["max_watermark"] == 0.5


def test_all_kept_pictures_are_paged_through_and_shown(client):
    rows = rows_of(client, "/web/kept", limit=7)
    assert len(rows) == client.get("/web").json()["kept"]
    assert len({row["key"] for row in rows}) == len(rows)
    path = f"/web/pictures/{rows[0]['unit']}/{rows[0]['number']}"
    for query in ({}, {"small": True}, {"small": True}):
        answer = client.get(path, params=query)
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert Image.open(io.BytesIO(answer.content)).size == (16, 16)
    about = client.get(f"{path}/about").json()
    assert about["row"]["status"] == "ok" and about["row"]["key"] == about["key"]
    assert about["original"] == [24, 20] and about["row"]["scores"]["watermark"] == 0.1


@pytest.mark.parametrize("text", ["Picture NUMBER 119", "00002-000/00000049"])
def test_a_search_finds_a_row_by_caption_or_key(client, text):
    rows = rows_of(client, "/web/kept", search=text)
    assert [row["caption"] for row in rows] == ["picture number 119"]


def test_rows_are_filtered_by_outcome_and_text(client):
    counts = {each["status"]: each["rows"] for each in client.get("/web").json()["outcomes"]}
    for outcome, count in counts.items():
        rows = rows_of(client, "/web/rows", outcome=outcome, limit=5)
        assert [row["status"] for row in rows] == [outcome] * count
    rejected = rows_of(client, "/web/rows", outcome="rejected")
    assert len(rejected) == 120 - counts["ok"]
    timeouts = rows_of(client, "/web/rows", search="AS IT WAS TOLD", outcome="timeout")
    assert len(timeouts) == counts["timeout"]


def test_rejected_pictures_have_a_reason_and_a_row(client):
    page = client.get("/web/rejected").json()
    assert page["reasons"]["filtered_watermark"] == len(page["rows"]) - sum(
        count for reason, count in page["reasons"].items() if reason != "filtered_watermark"
    )
    row = client.get("/web/rejected", params={"reason": "filtered_watermark"}).json()["rows"][0]
    path = f"/web/previews/{row['file']}/{row['number']}"
    assert client.get(path).content.startswith(b"\xff\xd8\xff")
    about = client.get(f"{path}/about").json()
    assert about["row"]["status"] == about["reason"] == "filtered_watermark"
    assert about["row"]["scores"]["watermark"] == 0.9


def test_a_search_stops_after_its_time_and_goes_on_from_there(root, monkeypatch):
    totals = UnitTotals(root / "data" / "web")
    totals.refresh()
    monkeypatch.setattr(search, "PIECE", 4)
    pictures, found, starts = ShardPictures(), [], [0]
    while len(starts) < 100:
        answer = search.kept_pictures(
            totals.root, list(totals.entries.values()), pictures, start=starts[-1], limit=60,
            text="number 11", seconds=0.0,
        )  # fmt: skip
        found += [row["caption"] for row in answer.rows]
        if not answer.to_json()["more"]:
            break
        assert 0 < answer.to_json()["searched"] <= 4
        starts.append(answer.next)
    pictures.close()
    assert len(starts) > 8 and starts == sorted(set(starts))
    assert "picture number 119" in found and all("number 11" in caption for caption in found)


def test_damaged_files_are_named_and_the_rest_is_shown(client):
    one = client.get("/damaged").json()
    text = " ".join(one["problems"])
    assert "00000-000.array_record has 3 bytes" in text and "record of unit 00002-000" in text
    kept = client.get("/damaged/kept", params={"limit": 200}).json()
    assert [*kept["damaged"]] == ["images/00000-000.array_record"] and kept["rows"]
    assert {row["unit"] for row in kept["rows"]} == {"00001-000"}
    rows = client.get("/damaged/rows", params={"limit": 200}).json()
    assert [*rows["damaged"]] == ["outcomes/00001-000.parquet"] and len(rows["rows"]) == 40
    unit = kept["rows"][0]["unit"]
    about = client.get(f"/damaged/pictures/{unit}/0/about").json()
    assert about["row"] is None and "00001-000.parquet" in about["problem"]
    assert client.get("/damaged/pictures/00000-000/0").status_code == 404


def test_names_in_a_stranger_s_records_lead_nowhere(client):
    answer = client.get("/evil/kept").json()
    assert answer["rows"] == [] and len(answer["damaged"]) == 1
    assert "secret" not in client.get("/evil/pictures/00000-000/0").text
    assert client.get("/evil/pictures/00000-000/0").status_code == 404


def test_a_preparation_in_progress_shows_new_units(client, root):
    before = client.get("/running").json()
    assert before["state"] == "preparing" and before["fingerprint"] is None
    made.add_unit(root / "data" / "running", root / "data" / "web")
    after = client.get("/running").json()
    assert after["units"]["images"] == before["units"]["images"] + 1
    assert after["rows"] == before["rows"] + made.SIZES[-1]
    kept = rows_of(client, "/running/kept", limit=200)
    assert len(kept) == after["kept"] > before["kept"]


def test_a_lock_shows_that_a_preparation_runs(root):
    folder = root / "data" / "running"
    assert is_running(folder, newest=0.0) is False
    import fcntl

    with (folder / ".lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_running(folder, newest=0.0) or not Path("/proc/locks").exists()


def test_huge_captions_are_cut(client):
    rows = rows_of(client, "/web/kept", search="very very")
    assert len(rows) == 1 and len(rows[0]["caption"]) < 2_100
    path = f"/web/pictures/{rows[0]['unit']}/{rows[0]['number']}/about"
    assert len(client.get(path).content) < 10_000


BAD = [
    "/nothing", "/nothing/kept", "/..%2Fweb", "/web%2F..%2Fdamaged", "/web/pictures/..%2F..%2Fx/0",
    "/web/pictures/00000-000/999999", "/web/pictures/00000-000/-1", "/web/previews/..%2Fx/0",
    "/web/previews/00000-000/99999", "/web/previews/%00/0", "/web/pictures/00000-000/0/more",
]  # fmt: skip
WRONG = [
    "/web/kept?start=-1", "/web/kept?limit=0", "/web/kept?limit=9999", "/web/rows?outcome=nonsense",
    "/web/kept?start=1e99", f"/web/kept?search={'x' * 501}", "/web/pictures/00000-000/one",
    "/web/rows?start=99999999999999999999", "/broken",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD)
def test_names_that_do_not_exist_are_not_found(client, path):
    answer = client.get(path)
    assert answer.status_code in (400, 404) and len(answer.content) < 4096


@pytest.mark.parametrize("path", WRONG)
def test_wrong_queries_are_refused(client, path):
    answer = client.get(path)
    assert answer.status_code == 400 and len(answer.content) < 4096, answer.text


def test_a_start_behind_the_end_gives_nothing(client):
    answer = client.get("/web/kept", params={"start": 10**9}).json()
    assert answer["rows"] == [] and not answer["more"]


def test_without_the_extra_the_list_says_so(client, monkeypatch):
    monkeypatch.setattr("pinxit.extras.DATA", ("a_package_that_is_missing",))
    answer = listed(client)
    assert answer["datasets"] == [] and "pip install" in answer["problem"]
    refused = client.get("/web/kept")
    assert refused.status_code == 400 and "a_package_that_is_missing" in refused.text


def test_two_folders_of_one_name_have_two_names(root, tmp_path):
    other = tmp_path / "web"
    other.mkdir()
    (other / "images.json").write_text("{}")
    found = find_datasets([str(root / "data" / "web"), str(tmp_path)], None)
    assert len(found) == 2 and all(name.startswith("web-") for name in found)
