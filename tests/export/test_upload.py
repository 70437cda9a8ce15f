"""`pinxit export --push_to_hub` against a hub on loopback."""

from __future__ import annotations

import pytest
from exported import files_of
from uploading_hub import UploadingHub, serve

from pinxit.cli.main import main
from pinxit.export.hub_upload import FOLDERS

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
"""The client's own warning, about a request of its own."""
WORDS = ("--samples", "0", "--push_to_hub")


@pytest.fixture
def hub(monkeypatch):
    """A running hub, which the client uses with a valid token and without Xet."""
    hub = UploadingHub()
    with serve(hub) as address:
        _use(monkeypatch, address)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


def _use(monkeypatch, address):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def export(release, out, *words):
    return main(["export", str(release), "--out", str(out), *words])


def error_of(capsys) -> str:
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line.startswith("pinxit: error")]
    assert len(lines) == 1, text
    return lines[0]


def test_a_folder_is_uploaded_byte_for_byte(releases, tmp_path, hub, capsys):
    out = tmp_path / "out"
    assert export(releases["clip"], out, *WORDS, "ada/moons", "--private", "1") == 0
    files = {n: c for n, c in hub.models["ada/moons"].items() if n != ".gitattributes"}
    assert files == files_of(out)
    assert hub.objects, "a large file is a Git LFS object"
    assert hub.private == {"ada/moons"}
    assert hub.messages == ["Export by Pinxit 0.1.0"]
    assert capsys.readouterr().out.splitlines()[1].endswith("/ada/moons")
    card = files["README.md"].decode()
    assert 'from_pretrained("ada/moons")' in card
    assert "--checkpoint ada/moons" in card


def test_an_organisation_of_the_user_may_be_the_owner(releases, tmp_path, hub):
    assert export(releases["clip"], tmp_path / "out", *WORDS, "lab/moons") == 0
    assert "lab/moons" in hub.models
    assert hub.private == set()


def test_a_second_export_replaces_the_files_of_the_first(releases, tmp_path, hub):
    first = {f"{FOLDERS[0]}/old-00002-of-00002.safetensors": b"old", "LICENSE": b"mine"}
    hub.models["ada/moons"] = dict(first)
    assert export(releases["clip"], tmp_path / "out", *WORDS, "ada/moons") == 0
    files = hub.models["ada/moons"]
    assert files.pop("LICENSE") == b"mine"
    assert files == files_of(tmp_path / "out")


@pytest.mark.parametrize("name", ["moons", "ada/", "a b/c", "ada/moons/x", "../x", "ada/a--b"])
def test_a_wrong_name_is_refused_before_anything(releases, tmp_path, hub, capsys, name):
    assert export(releases["clip"], tmp_path / "out", *WORDS, name) == 2
    assert "is not the id of a repository; valid: OWNER/NAME" in error_of(capsys)
    assert hub.requests == []
    assert not (tmp_path / "out").exists()


def test_a_missing_token_is_refused_before_anything(releases, tmp_path, hub, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert export(releases["clip"], tmp_path / "out", *WORDS, "ada/moons") == 2
    assert "is not possible without a token of the Hub; valid: HF_TOKEN=" in error_of(capsys)
    assert hub.requests == []
    assert not (tmp_path / "out").exists()


def test_a_wrong_token_is_refused_before_the_export(releases, tmp_path, hub, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert export(releases["clip"], tmp_path / "out", *WORDS, "ada/moons") == 2
    assert "the token is not valid (HTTP 401)" in error_of(capsys)
    assert not (tmp_path / "out").exists()


def test_a_foreign_namespace_is_refused_before_the_export(releases, tmp_path, hub, capsys):
    assert export(releases["clip"], tmp_path / "out", *WORDS, "bob/moons") == 2
    message = error_of(capsys)
    assert "which belongs to ada; valid: ada/NAME, lab/NAME" in message
    assert not (tmp_path / "out").exists()


def test_a_dataset_of_this_name_is_refused_before_the_export(releases, tmp_path, hub, capsys):
    hub.datasets.add("ada/moons")
    assert export(releases["clip"], tmp_path / "out", *WORDS, "ada/moons") == 2
    assert "is a dataset on the Hub, not a model" in error_of(capsys)
    assert not (tmp_path / "out").exists()


def test_a_public_repository_does_not_become_private(releases, tmp_path, hub, capsys):
    hub.models["ada/moons"] = {}
    assert export(releases["clip"], tmp_path / "out", *WORDS, "ada/moons", "--private") == 2
    assert "is a public repository already" in error_of(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("request_line", "code", "reason"),
    [
        ("POST /api/repos/create", 403, "the token may not write there (HTTP 403)"),
        ("POST /api/models/ada/moons/commit", 403, "the token may not write there (HTTP 403)"),
        ("POST /api/models/ada/moons/preupload", 400, "the Hub answers with HTTP 400"),
        ("PUT /store", 403, "the token may not write there (HTTP 403)"),
    ],
)
def test_a_refused_upload_keeps_the_folder(
    releases, tmp_path, hub, capsys, request_line, code, reason
):
    hub.refuse[request_line] = code
    out = tmp_path / "out"
    assert export(releases["clip"], out, *WORDS, "ada/moons") == 2
    message = error_of(capsys)
    assert reason in message
    assert f"{out} is complete: hf upload ada/moons {out}" in message
    assert (out / "model_index.json").is_file()


def test_no_network_is_one_line_before_the_export(releases, tmp_path, hub, capsys, monkeypatch):
    _use(monkeypatch, "http://127.0.0.1:9")
    assert export(releases["clip"], tmp_path / "out", *WORDS, "ada/moons") == 2
    assert "cannot be checked: the Hub is not reachable" in error_of(capsys)
    assert not (tmp_path / "out").exists()
