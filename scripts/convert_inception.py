"""Converts FID's Inception v3 to a safetensors file, which Pinxit reads without torch.

python scripts/convert_inception.py inception-2015-12-05.pt inception.safetensors    (extra: parity)

The source is pytorch-fid's `pt_inception-2015-12-05-6726825d.pth` or NVIDIA's TorchScript
`inception-2015-12-05.pt`, which clean-fid reads. docs/metric_networks.md says where they come from.
A .pth is opened with `weights_only=True`, so that no code in it can run. The target has the tensor
names of pytorch-fid and lacks the classifier.
"""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from pinxit.config import UsageError
from pinxit.encoders.fingerprint import fingerprint
from pinxit.encoders.weights import flatten, from_tensors, to_tensors
from pinxit.evaluate.extractors.inception import ignored
from pinxit.evaluate.extractors.inception_network import inception_shapes
from pinxit.files import whole

STEM = {
    "Conv2d_1a_3x3": "conv",
    "Conv2d_2a_3x3": "conv_1",
    "Conv2d_2b_3x3": "conv_2",
    "Conv2d_3b_1x1": "conv_3",
    "Conv2d_4a_3x3": "conv_4",
}
MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
"""The blocks in order; TorchScript calls them ``mixed``, ``mixed_1``, ..., ``mixed_10``."""
TOWERS = {
    "5": {"branch1x1": "conv", "branch5x5_": "tower", "branch3x3dbl_": "tower_1"},
    "6a": {"branch3x3": "conv", "branch3x3dbl_": "tower"},
    "6": {"branch1x1": "conv", "branch7x7_": "tower", "branch7x7dbl_": "tower_1"},
    "7a": {"branch3x3_": "tower", "branch7x7x3_": "tower_1"},
}
"""TorchScript's name of each branch, by the block or its first digit. The steps of a tower are
called ``conv``, ``conv_1``, ``conv_2``, ..."""
LAST = {
    "branch1x1": "conv",
    "branch3x3_1": "tower_conv",
    "branch3x3_2a": "tower_mixed_conv",
    "branch3x3_2b": "tower_mixed_conv_1",
    "branch3x3dbl_1": "tower_1_conv",
    "branch3x3dbl_2": "tower_1_conv_1",
    "branch3x3dbl_3a": "tower_1_mixed_conv",
    "branch3x3dbl_3b": "tower_1_mixed_conv_1",
    "branch_pool": "tower_2_conv",
}
"""TorchScript's names in the last two blocks."""
PARTS = {"conv.weight": "weight", "bn.bias": "beta", "bn.running_mean": "mean"} | {
    "bn.running_var": "var"
}
"""TorchScript's names of the tensors of a convolution. Its normalisation has no scale."""


def torchscript_names() -> dict[str, str]:
    """Returns the TorchScript's name of each convolution, by pytorch-fid's name."""
    paths = {path.rsplit(".", 2)[0] for path in flatten(inception_shapes())}
    return {path: f"layers.{_layer(path)}" for path in sorted(paths)}


def _layer(path: str) -> str:
    if path in STEM:
        return STEM[path]
    block, branch = path.removeprefix("Mixed_").split(".")
    number = MIXED.index(block)
    mixed = f"mixed_{number}" if number else "mixed"
    if block in ("7b", "7c"):
        return f"{mixed}.{LAST[branch]}"
    if branch == "branch_pool":
        return f"{mixed}.tower_2.conv"
    towers = TOWERS.get(block) or TOWERS[block[0]]
    if branch in towers:
        return f"{mixed}.{towers[branch]}"
    step = int(branch[-1]) - 1
    return f"{mixed}.{towers[branch[:-1]]}.conv" + (f"_{step}" if step else "")


def with_our_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the TorchScript's tensors with pytorch-fid's names, and scales of one.

    Raises `UsageError` if a tensor is missing or left over.
    """
    names = torchscript_names()
    expected = {f"{path}.{part}" for path in names.values() for part in PARTS.values()}
    rest = {name for name in tensors if not name.startswith("output.")}
    if wrong := sorted(expected ^ rest):
        raise UsageError(
            f"{len(wrong)} tensors do not have the names of NVIDIA's TorchScript, such as "
            f"{wrong[0]!r} ({'missing' if wrong[0] in expected else 'unexpected'})"
        )
    ours = {}
    for path, theirs in names.items():
        for part, their_part in PARTS.items():
            ours[f"{path}.{part}"] = tensors[f"{theirs}.{their_part}"]
        ours[f"{path}.bn.weight"] = np.ones_like(ours[f"{path}.bn.bias"])
    return ours


def is_torchscript(path: Path) -> bool:
    """Returns whether a file is a TorchScript: an archive that has the file constants.pkl."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a .pth file or a TorchScript, in float32; no code in it runs."""
    valid = "pytorch-fid's .pth file or NVIDIA's TorchScript (see docs/metric_networks.md)"
    if not path.is_file():
        raise UsageError("source", str(path), problem="not a file", valid=valid)
    try:
        import torch
    except ImportError as error:
        raise UsageError('torch is not installed; run `pip install -e ".[parity]"`') from error
    try:
        if is_torchscript(path):
            state = torch.jit.load(str(path), map_location="cpu").state_dict()
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        problem = "neither a state dict of tensors alone nor a TorchScript"
        raise UsageError("source", str(path), problem=problem, valid=valid) from error
    if not isinstance(state, Mapping) or not all(map(torch.is_tensor, state.values())):
        raise UsageError("source", str(path), problem="not a state dict of tensors", valid=valid)
    return {name: value.detach().float().numpy() for name, value in state.items()}


def convert(source: Path, target: Path) -> str:
    """Writes the safetensors file, and returns the weights' fingerprint."""
    tensors = read(source)
    if any(name.startswith("layers.") for name in tensors):
        tensors = with_our_names(tensors)
    params = from_tensors(
        tensors,
        inception_shapes(),
        source=source,
        ignore=ignored,
        description="the Inception v3 of FID",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole(target) as temporary:
        save_file(to_tensors(params), temporary, metadata={"format": "pt"})
    return fingerprint(params)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="pytorch-fid's .pth or NVIDIA's TorchScript .pt")
    parser.add_argument("target", type=Path, help="safetensors file to write")
    options = parser.parse_args()
    try:
        print(f"{options.target}: fingerprint {convert(options.source, options.target)}")
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
