"""The manifest: its fingerprint is of the content alone, and other formats are refused."""

import dataclasses
import json

import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.data.prepared.manifest import Manifest
from pinxit.data.prepared.shards import describe
from pinxit.prepare.gather import gather
from pinxit.prepare.ledger import Ledger

IDENTITY = {"source": {"name": "toy", "revision": "1"}, "filters": {"min_side": 256}}


def test_the_fingerprint_is_of_the_content_alone(tmp_path):
    ledger = Ledger(tmp_path, "images")
    ledger.begin(IDENTITY)
    ledger.commit(toys.record_of(ledger, "a"))
    first = gather(tmp_path, ["a"], "images")
    again = dataclasses.replace(toys.record_of(ledger, "a", generation=3), seconds=9.0)
    ledger.commit(again)
    second = gather(tmp_path, ["a"], "images")
    assert second.files != first.files and second.fingerprint() == first.fingerprint()
    ledger.commit(toys.record_of(ledger, "a", generation=4, text="other"))
    assert gather(tmp_path, ["a"], "images").fingerprint() != first.fingerprint()


def test_the_fingerprint_is_not_of_how_the_web_failed(tmp_path):
    """Two outcomes whose words differ, and the same images."""
    ledger = Ledger(tmp_path, "images")
    ledger.begin(IDENTITY)
    found = []
    for words in ("timed out", "reset by peer"):
        record = toys.record_of(ledger, "a")
        path = ledger.path("outcomes", "a")
        path.parent.mkdir(exist_ok=True)
        path.write_text(words)
        files = {**record.files, "outcomes": describe(path, name=path.name, count=1)}
        ledger.commit(dataclasses.replace(record, files=files))
        found.append(gather(tmp_path, ["a"], "images"))
    assert found[0].files["outcomes"] != found[1].files["outcomes"]
    assert found[0].fingerprint() == found[1].fingerprint()


@pytest.mark.parametrize("other", [1, 3, None])
def test_other_formats_are_refused(tmp_path, other):
    ledger = Ledger(tmp_path, "images")
    ledger.begin(IDENTITY)
    ledger.commit(toys.record_of(ledger, "a"))
    manifest = gather(tmp_path, ["a"], "images")
    about = json.loads(ledger.about.read_text())
    about["identity"]["format"] = other
    ledger.about.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=rf"format \(was {other or 'none'}, is 2\)"):
        ledger.begin(IDENTITY)
    dataclasses.replace(manifest, identity={**manifest.identity, "format": other}).write(tmp_path)
    with pytest.raises(ValueError, match=f"format {other} is unknown; valid: 2"):
        Manifest.read(tmp_path)
