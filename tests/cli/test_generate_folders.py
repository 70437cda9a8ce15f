"""The folder of a run is not a prompt; a folder that only has the name of one does no harm."""

import pytest

from pinxit.cli.main import main
from pinxit.cli.picture_requests import MODEL_FILES, holds_model


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_run_among_the_prompts_is_refused_before_a_model_is_loaded(name, tmp_path, capsys):
    folder = tmp_path / "my run"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("{}")
    assert main(["generate", str(folder), "a small red house"]) == 2
    said = capsys.readouterr().err
    assert f"--checkpoint '{folder}' \"a prompt\"" in said and "not a prompt" in said


def test_other_words_are_prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "castle").mkdir()
    for word in ("castle", "a castle", "", "a\0b", "x" * 5000):
        assert not holds_model(word)
