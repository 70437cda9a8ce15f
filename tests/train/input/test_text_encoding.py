"""The encoding of captions is a setting of training too, and of no consequence if it is not set."""

from pathlib import Path

import pytest

from pinxit.config import UsageError, to_json
from pinxit.data.row import source_identity
from pinxit.train.input.open import open_source_of
from pinxit.train.resume_policy import check_config
from pinxit.train.settings import TrainConfig


def test_streamed_captions_are_decoded(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes("url,caption\nhttp://a,Grüße aus Köln\n".encode("cp1252"))
    plain = TrainConfig(dataset_name="csv", dataset_path=str(path))
    declared = TrainConfig(dataset_name="csv", dataset_path=str(path), text_encoding="cp1252")
    rows = {}
    for config in (plain, declared):
        source = open_source_of(config)
        assert source is not None
        rows[config.text_encoding] = next(source.read(source.units()[0]))
    assert (rows[None].fault, rows[None].caption) == ("bad_text", "")
    assert (rows["cp1252"].fault, rows["cp1252"].caption) == (None, "Grüße aus Köln")


def test_the_identity_names_it_only_if_it_is_set(tmp_path: Path):
    (tmp_path / "a.csv").write_text("url,caption\nhttp://a,b\n")
    identities = []
    for encoding in (None, "latin-1"):
        config = TrainConfig(dataset_name="csv", dataset_path=str(tmp_path), text_encoding=encoding)
        source = open_source_of(config)
        assert source is not None
        identities.append(source_identity(source))
    assert "text_encoding" not in identities[0]
    assert identities[1] == {**identities[0], "text_encoding": "iso8859-1"}


def test_a_run_of_the_version_before_goes_on():
    config = TrainConfig(dataset_name="csv", dataset_path="x")
    before = to_json(config)
    assert before.pop("text_encoding", "missing") is None
    check_config(before, to_json(config))
    with pytest.raises(UsageError, match="text_encoding"):
        check_config(before, to_json(TrainConfig(dataset_name="csv", text_encoding="cp1252")))


def test_an_unknown_encoding_is_refused():
    with pytest.raises(UsageError, match="text_encoding: 'klingon' is unknown; valid: an encoding"):
        TrainConfig(dataset_name="csv", dataset_path="x", text_encoding="klingon")
