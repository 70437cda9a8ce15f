"""Inception's features, and the conversion of its weights, against torch."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from pinxit.config import UsageError
from pinxit.evaluate.extractors.clean_resize import clean_resize
from pinxit.evaluate.extractors.inception import load_inception
from pinxit.evaluate.extractors.inception_network import folded, inception_features

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning"),
]


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("torch")
    from fid_inception_torch import random_inception

    return random_inception()


@pytest.fixture(scope="module")
def script():
    """The module scripts/convert_inception.py."""
    pytest.importorskip("torch")
    folder = str(Path(__file__).parents[2] / "scripts")
    sys.path.insert(0, folder)
    import convert_inception

    sys.path.remove(folder)
    return convert_inception


@pytest.fixture(scope="module")
def converted(reference, script, tmp_path_factory) -> Path:
    """The weights of `reference`, through a .pth as pytorch-fid publishes it."""
    import torch

    folder = tmp_path_factory.mktemp("inception")
    torch.save(reference.state_dict(), folder / "pt_inception.pth")
    script.convert(folder / "pt_inception.pth", folder / "inception.safetensors")
    return folder / "inception.safetensors"


def test_features_agree_with_torch(reference, converted):
    import torch

    rng = np.random.default_rng(0)
    noise, dark = (
        rng.integers(0, brightest, (*sides, 3), np.uint8)
        for sides, brightest in (((64, 40), 256), ((5, 4), 90))
    )
    pixels = np.stack([clean_resize(noise), clean_resize(dark)])
    with torch.no_grad():
        theirs = reference(torch.from_numpy(pixels.transpose(0, 3, 1, 2))).numpy()
    ours = np.asarray(jax.jit(inception_features)(folded(load_inception(converted)), pixels))
    assert ours.shape == (2, 2048)
    assert np.abs(theirs[0] - theirs[1]).max() > 0.1 * np.abs(theirs).max(), (
        "pictures do not differ"
    )
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


def test_a_torchscript_gives_the_same_weights(reference, script, converted, tmp_path):
    import torch
    from fid_inception_torch import scripted

    with torch.no_grad():
        for name, value in reference.state_dict().items():
            if name.endswith("bn.weight"):
                value.fill_(1.0)  # in place: NVIDIA's file has no scales
    torch.save(reference.state_dict(), tmp_path / "a.pth")
    scripted(reference, script.torchscript_names()).save(str(tmp_path / "a.pt"))
    prints = {
        script.convert(tmp_path / name, tmp_path / f"{name}.safetensors")
        for name in ("a.pth", "a.pt")
    }
    assert len(prints) == 1
    a, b = (load_inception(tmp_path / f"a.{kind}.safetensors") for kind in ("pth", "pt"))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_files_of_other_kinds_are_refused(script, tmp_path):
    import torch

    class Code:
        """An object whose unpickling runs a function."""

        def __reduce__(self):
            return print, ("code ran",)

    torch.save({"x": Code()}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"layers.conv.weight": torch.zeros(1)}, tmp_path / "less.pth")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "fc.pth")
    (tmp_path / "text.pt").write_text("no weights")
    for name, problem in (
        ("code.pth", "neither a state dict of tensors alone nor a TorchScript"),
        ("text.pt", "neither a state dict of tensors alone nor a TorchScript"),
        ("list.pth", "not a state dict of tensors"),
        ("less.pth", "375 tensors do not have the names of NVIDIA's TorchScript"),
        ("fc.pth", "470 tensors do not fit the Inception v3 of FID: missing"),
        ("none.pth", "not a file"),
    ):
        with pytest.raises(UsageError, match=problem) as caught:
            script.convert(tmp_path / name, tmp_path / "out.safetensors")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()
