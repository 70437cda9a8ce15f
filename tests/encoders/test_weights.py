"""Reading Hugging Face directories: every fault is named, and pickles are never opened."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from pinxit.encoders import safetensors_files as stored
from pinxit.encoders import vae, weights
from pinxit.encoders.vae import AutoencoderKLConfig

TINY = AutoencoderKLConfig(block_out_channels=(4,), norm_num_groups=2, latent_channels=2)
CONV = "encoder.conv_in.weight"


@pytest.fixture
def directory(tmp_path):
    vae.save_vae(tmp_path, vae.init_vae(TINY, jax.random.key(0)), TINY)
    return tmp_path


def changed(directory: Path, **tensors: np.ndarray | None) -> None:
    """Replaces tensors of the file (dots in their names written ``__``); None takes one out."""
    path = directory / vae.WEIGHTS
    new = load_file(path) | {name.replace("__", "."): value for name, value in tensors.items()}
    save_file({name: value for name, value in new.items() if value is not None}, path)


def never_read(monkeypatch) -> None:
    def refuse(self, dtype=None, copy=None):
        raise AssertionError(f"{self.name} was read")

    monkeypatch.setattr(stored.StoredTensor, "__array__", refuse)


@pytest.mark.parametrize("shape", [(5,), (3, 3, 4, 8), (4096,), (4097,), (70, 90)])
def test_fresh_weights_are_those_of_their_shape_alone(shape):
    key = jax.random.key(3)
    expected = jax.random.normal(key, shape) * weights.EMBEDDING_DEVIATION
    np.testing.assert_array_equal(weights._initial("token_embedding", shape, key), expected)


def test_every_fault_is_in_one_error_before_anything_is_read(directory, monkeypatch):
    changed(
        directory,
        encoder__conv_in__bias=None,
        encoder__extra__weight=np.zeros(3, np.float32),
        decoder__conv_in__weight=np.zeros((4, 2, 1, 1), np.float32),
        quant_conv__bias=np.zeros(4, np.int64),
    )
    never_read(monkeypatch)
    with pytest.raises(ValueError, match="4 tensors do not fit the config") as error:
        vae.load_vae(directory)
    for words in (
        "missing encoder.conv_in.bias",
        "unexpected encoder.extra.weight",
        "decoder.conv_in.weight has shape (1, 1, 2, 4), expected (3, 3, 2, 4)",
        "quant_conv.bias is of type I64, known: float64, float32, float16, bfloat16",
    ):
        assert words in str(error.value)


def test_the_config_of_another_network_is_refused_unread(directory, monkeypatch):
    value = weights.read_config(directory / "config.json") | {"block_out_channels": [8]}
    (directory / "config.json").write_text(json.dumps(value))
    never_read(monkeypatch)
    message = r"86 tensors .* decoder.conv_in.weight has shape \(3, 3, 2, 4\), expected"
    with pytest.raises(ValueError, match=message):
        vae.load_vae(directory)


def test_values_that_are_not_finite_are_named(directory):
    changed(
        directory,
        quant_conv__bias=np.full(4, np.nan, np.float32),
        post_quant_conv__bias=np.full(2, 1e300),
    )
    with pytest.raises(ValueError, match="2 tensors are damaged") as error:
        vae.load_vae(directory)
    assert "; quant_conv.bias has values that are not finite" in str(error.value)
    assert "post_quant_conv.bias has" in str(error.value)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
def test_pickles_are_refused(directory, suffix):
    (directory / vae.WEIGHTS).unlink()
    (directory / f"diffusion_pytorch_model{suffix}").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match=r"only pickled weights .*convert them to safetensors"):
        vae.load_vae(directory)


@pytest.mark.parametrize("kept", [0, 4, 100, -5])
def test_truncated_files_are_named(directory, kept):
    path = directory / vae.WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        vae.load_vae(directory)


def test_a_header_of_absurd_size_is_refused(directory):
    path = directory / vae.WEIGHTS
    path.write_bytes(struct.pack("<Q", 1 << 40) + path.read_bytes()[8:])
    with pytest.raises(ValueError, match=r"is not a whole safetensors file: .*header too large"):
        vae.load_vae(directory)


def test_what_is_absent_is_named(directory):
    with pytest.raises(ValueError, match="'nowhere' is neither a known name nor a directory"):
        vae.load_vae("nowhere")
    path = directory / vae.WEIGHTS
    with pytest.raises(ValueError, match="is a file; pass the directory that contains it"):
        vae.load_vae(path)
    path.rename(directory / "weights.npz")
    with pytest.raises(ValueError, match=r"has none of .* it has config.json, weights.npz"):
        vae.load_vae(directory)
    (directory / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config.json; it has weights.npz"):
        vae.load_vae(directory)


@pytest.mark.parametrize(("text", "words"), [("{", "not valid JSON"), ("[]", "holds a list")])
def test_broken_configs_are_named(directory, text, words):
    (directory / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        vae.load_vae(directory)


def test_the_only_safetensors_file_is_taken(directory):
    expected = vae.load_vae(directory)[0]
    path = directory / vae.WEIGHTS
    path = path.rename(directory / "diffusion_pytorch_model.fp16.safetensors")
    (directory / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04")
    jax.tree.map(np.testing.assert_array_equal, vae.load_vae(directory)[0], expected)
    path.with_name("other.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"more than one file .*fp16.safetensors, other.safe"):
        vae.load_vae(directory)


@pytest.fixture
def sharded(directory):
    """The directory with its weights in two files, and the index that says which is where."""
    path = directory / vae.WEIGHTS
    tensors = load_file(path)
    path.unlink()
    names = sorted(tensors)
    parts = {"a-00001.safetensors": names[::2], "a-00002.safetensors": names[1::2]}
    for part, owned in parts.items():
        save_file({name: tensors[name] for name in owned}, directory / part)
    weight_map = {name: part for part, owned in parts.items() for name in owned}
    index = directory / f"{vae.WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return directory


def remapped(directory: Path, change: dict) -> None:
    index = directory / f"{vae.WEIGHTS}.index.json"
    weight_map = weights.read_config(index)["weight_map"] | change
    index.write_text(json.dumps({"weight_map": weight_map}))


def test_sharded_weights(sharded):
    expected = vae.init_vae(TINY, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, vae.load_vae(sharded)[0], expected)
    index = sharded / f"{vae.WEIGHTS}.index.json"
    index.rename(sharded / "diffusion_pytorch_model.safetensors.index.fp16.json")
    jax.tree.map(np.testing.assert_array_equal, vae.load_vae(sharded)[0], expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": "../a-00001.safetensors"}, "lists files outside its directory"),
        ({"x": "/etc/passwd"}, "lists files outside its directory"),
        ({"x": "a-00003.safetensors"}, r"lists files that do not exist: a-00003"),
        ({"x": "a-00001.safetensors"}, "lists tensors that its files lack: x in a-00001"),
        ({CONV: "a-00001.safetensors"}, f"its files lack: {CONV} in a-00001"),
        ({"x": "config.json"}, "config.json is not a whole safetensors file"),
    ],
)
def test_faults_of_an_index_are_named(sharded, change, words):
    with pytest.raises(ValueError, match=words):
        remapped(sharded, change)
        vae.load_vae(sharded)


def test_tensors_that_the_index_leaves_out_are_foreign(sharded):
    path = sharded / "a-00002.safetensors"
    save_file(load_file(path) | {"y": np.zeros(1, np.float32)}, path)
    with pytest.raises(ValueError, match="unexpected y"):
        vae.load_vae(sharded)


@pytest.mark.parametrize("weight_map", [None, [], {}])
def test_an_index_without_a_map_is_refused(sharded, weight_map):
    index = sharded / f"{vae.WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match="has no 'weight_map'"):
        vae.load_vae(sharded)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("on_disk", ["float16", "bfloat16", "float32", "float64"])
def test_every_type_on_disk_becomes_the_one_asked_for(directory, on_disk, dtype):
    path = directory / vae.WEIGHTS
    tensors = {
        name: value.astype(jax.numpy.dtype(on_disk)) for name, value in load_file(path).items()
    }
    save_file(tensors, path)
    params = vae.load_vae(directory, dtype=dtype)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jax.numpy.dtype(dtype)}
    expected = tensors[CONV].astype(np.float32).astype(jax.numpy.dtype(dtype))
    given = np.asarray(params["encoder"]["conv_in"]["kernel"]).transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(given, expected)


def test_unknown_types_are_refused(directory):
    with pytest.raises(ValueError, match="dtype is 'float16'; known: float32, bfloat16"):
        vae.load_vae(directory, dtype="float16")


def test_parameters_go_to_their_shards_one_at_a_time(directory, monkeypatch):
    """Every tensor is placed before the next is read, by its path, shape and sharding."""
    events, read = [], stored.StoredTensor.__array__

    def recorded(self, dtype=None, copy=None):
        events.append("read")
        return read(self, dtype, copy)

    monkeypatch.setattr(stored.StoredTensor, "__array__", recorded)
    mesh = jax.make_mesh((1,), ("model",), devices=jax.devices()[:1])

    def sharding(path: str, shape: tuple[int, ...]) -> NamedSharding:
        events.append((path, shape))
        return NamedSharding(mesh, PartitionSpec(*(None,) * (len(shape) - 1), "model"))

    value, tensors = weights.load_directory(directory, weights=(vae.WEIGHTS,))
    shapes = vae.vae_shapes(AutoencoderKLConfig.from_json(value))
    params = weights.from_tensors(tensors, shapes, sharding=sharding)
    expected = vae.init_vae(TINY, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert events[::2] == ["read"] * (len(events) // 2)
    assert dict(events[1::2]) == weights.flatten(shapes)
    sizes = [math.prod(shape) for _, shape in events[1::2]]
    assert sizes == sorted(sizes, reverse=True), "each needs room for two while it is read"
    spec = params["encoder"]["conv_in"]["kernel"].sharding.spec
    assert spec == PartitionSpec(None, None, None, "model")


@pytest.mark.parametrize(
    ("source", "repo_id", "revision"),
    [("owner/name", "owner/name", None), ("owner/name@refs/pr/1", "owner/name", "refs/pr/1")],
)
def test_a_repository_is_fetched(directory, monkeypatch, source, repo_id, revision):
    calls = []

    def snapshot_download(repo_id, *, revision, allow_patterns):
        calls.append((repo_id, revision, allow_patterns))
        return str(directory)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    vae.load_vae(source)
    ((given_id, given_revision, allow),) = calls
    assert (given_id, given_revision) == (repo_id, revision)
    assert allow == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model-*.safetensors",
    ]


def test_a_repository_that_cannot_be_had_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="cannot be fetched from the Hub") as error:
        weights.resolve("owner/name@v1", allow=["config.json"])
    for words in (
        "'owner/name' at revision 'v1'",
        "hf download owner/name --revision v1 --local-dir DIR",
        "'tiny' comes with Pinxit",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize("source", ["a/b/c", "../b", "a/b@", "a/../b", "a b/c", "/a/b", "@x"])
def test_what_cannot_be_a_repository_is_not_asked_for(source):
    with pytest.raises(ValueError, match="nor a directory; valid: one, two, a directory, a Hub"):
        weights.resolve(source, allow=[], names=("one", "two"))


def test_names_the_hub_refuses_are_named():
    with pytest.raises(ValueError, match="'a--b/c' cannot be fetched"):
        weights.resolve("a--b/c", allow=[])


def test_an_installation_without_its_bundle_says_so():
    with pytest.raises(ValueError, match=r"lacks the bundled networks: .* is missing"):
        weights.bundled("nothing of this name")


def test_arrays_are_parameters_too():
    value = np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3)
    params = weights.from_tensors({"l.weight": value}, {"l": {"kernel": (3, 2)}})
    np.testing.assert_array_equal(params["l"]["kernel"], value.T.astype(np.float32))


def test_flatten_and_back():
    tree = {"a": {"0": {"kernel": 1}, "b": 2}, "c": 3}
    assert weights.flatten(tree) == {"a.0.kernel": 1, "a.b": 2, "c": 3}
    assert weights.unflatten(weights.flatten(tree)) == tree


def test_initial_values():
    shapes = {"l": {"kernel": (100, 50), "bias": (50,)}, "n": {"scale": (5,)}}
    params = weights.init_from_shapes(shapes | {"e": {"embedding": (40, 50)}}, jax.random.key(0))
    assert abs(float(params["l"]["kernel"].std()) - 0.1) < 0.01
    assert abs(float(params["e"]["embedding"].std()) - 0.02) < 0.002
    assert (params["l"]["bias"] == 0).all()
    assert (params["n"]["scale"] == 1).all()


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint16", "bool", "float16", "float64"])
def test_tensors_of_every_type_are_read(dtype, tmp_path):
    """A counter of a batch norm is an integer; export copies it."""
    expected = np.arange(6).reshape(2, 3).astype(dtype)
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones(5, np.float32), "b": expected, "c": np.empty((0, 2), dtype)}, path)
    tensors = stored.open_safetensors(path)
    for name in ("b", "c"):
        assert np.asarray(tensors[name]).dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(tensors["b"]), expected)
    assert np.asarray(tensors["c"]).shape == (0, 2)
    path.unlink()
    np.testing.assert_array_equal(np.asarray(tensors["b"]), expected)
