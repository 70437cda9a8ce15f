"""Converts our parameters to and from diffusers' `PRXTransformer2DModel`; both are exact.

Three things differ. Linear kernels are transposed. Inside a head, diffusers stores the two members
of a rotated pair side by side, and we store them in two halves, so the columns of query and key
maps and their norms are reordered, which changes no attention score. And diffusers has a whole
modulation map per block, where we have a shared map with a per-block table and a low-rank
correction::

    W_i = W_shared + A_i B_i          bias_i = bias_shared + table_i

When converting from diffusers, the shared map is the mean over blocks, and each block stores its
difference from it, which a correction of full rank can always represent. A network whose
`modulation` is "per_block" has the maps of diffusers: then both directions only move numbers, and
they are exact to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from pinxit.config import UsageError, from_json
from pinxit.models.attention import head_axes
from pinxit.models.layers import TIME_FEATURES
from pinxit.models.transformer import Params, TransformerConfig

Tensors = dict[str, np.ndarray]

CLASS = "PRXTransformer2DModel"
FIELDS = {
    "in_channels": ("in_channels", 16),
    "patch_size": ("patch_size", 2),
    "context_in_dim": ("context_dim", 2304),
    "hidden_size": ("hidden_size", 1792),
    "mlp_ratio": ("mlp_ratio", 3.5),
    "num_heads": ("num_heads", 28),
    "depth": ("depth", 16),
    "theta": ("rope_theta", 10_000),
    "time_factor": ("time_factor", 1000.0),
    "time_max_period": ("time_max_period", 10_000),
    "bottleneck_size": ("bottleneck_size", None),
    "resolution_embeds": ("resolution_embeds", False),
}
"""The settings of diffusers' class: our name of each, and the value where it is absent there."""
DEFAULT_AXES = (32, 32)
"""The class's widths of the rotary axes where a config has none."""

OUTER = {
    "text_in": "txt_in",
    "time_in.first": "time_in.in_layer",
    "time_in.second": "time_in.out_layer",
    "resolution_in.first": "resolution_embedder.mlp.in_layer",
    "resolution_in.second": "resolution_embedder.mlp.out_layer",
    "final_modulation": "final_layer.adaLN_modulation.1",
    "final_out": "final_layer.linear",
}
"""Names of the linear layers outside the blocks, from ours to diffusers'."""

MLP = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
"""Names of the MLP's layers inside a block, from ours to diffusers'."""
NORMS = {"query_norm": "norm_q", "key_norm": "norm_k", "text_key_norm": "norm_added_k"}
"""Names of the attention norms inside a block, from ours to diffusers'."""


def prx_config(config: TransformerConfig) -> dict[str, Any]:
    """Returns the ``config.json`` of a `PRXTransformer2DModel` of the same shape."""
    return {
        "_class_name": CLASS,
        **{theirs: getattr(config, ours) for theirs, (ours, _) in FIELDS.items()},
        "axes_dim": list(head_axes(config.head_dim)),
    }


def config_of_prx(
    value: Mapping[str, Any], *, prediction: Literal["velocity", "latents"] = "velocity"
) -> TransformerConfig:
    """Returns the config, with modulation per block, of the class's ``config.json``.

    Absent settings have the class's defaults. Raises `UsageError` for another class, and for values
    that the network cannot have. Settings that the class does not have are left to the caller.
    """
    if (kind := value.get("_class_name", CLASS)) != CLASS:
        raise UsageError(f"config.json describes a {kind!r}; known: {CLASS}")
    fields = {ours: value.get(theirs, usual) for theirs, (ours, usual) in FIELDS.items()}
    extra = {"modulation": "per_block", "modulation_rank": 0, "prediction": prediction}
    config = from_json(TransformerConfig, fields | extra)
    axes = value.get("axes_dim") or list(DEFAULT_AXES)
    expected = list(head_axes(config.head_dim))
    if list(axes) != expected:
        raise UsageError(
            f"axes_dim is {axes}; it must be {expected}, because heads are {config.head_dim} wide "
            "and rows and columns have equal parts of them"
        )
    return config


def prx_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor of the class's state dict, by name."""
    d, hidden = config.hidden_size, config.mlp_hidden
    cells = config.in_channels * config.patch_size**2
    linear = {
        "txt_in": (d, config.context_dim),
        "time_in.in_layer": (d, TIME_FEATURES),
        "time_in.out_layer": (d, d),
        "resolution_embedder.mlp.in_layer": (d, TIME_FEATURES),
        "resolution_embedder.mlp.out_layer": (d, d),
        "final_layer.adaLN_modulation.1": (2 * d, d),
        "final_layer.linear": (cells, d),
        "img_in": (d, cells),
        "img_in.0": (config.bottleneck_size or 0, cells),
        "img_in.1": (d, config.bottleneck_size or 0),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name in _outer(config).values():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = linear[name], linear[name][:1]
    block: dict[str, tuple[int, ...]] = {
        "attention.img_qkv_proj.weight": (3 * d, d),
        "attention.txt_kv_proj.weight": (2 * d, d),
        "attention.to_out.0.weight": (d, d),
        **{f"attention.{name}.weight": (config.head_dim,) for name in NORMS.values()},
        "gate_proj.weight": (hidden, d),
        "up_proj.weight": (hidden, d),
        "down_proj.weight": (d, hidden),
        "modulation.lin.weight": (6 * d, d),
        "modulation.lin.bias": (6 * d,),
    }
    for i in range(config.depth):
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def to_prx(params: Params, config: TransformerConfig) -> Tensors:
    """Converts `params` to the state dict of an equivalent `PRXTransformer2DModel`."""
    tensors: Tensors = {}
    for ours, theirs in _outer(config).items():
        layer = _get(params, ours)
        tensors[f"{theirs}.weight"] = _array(layer["kernel"]).T
        tensors[f"{theirs}.bias"] = _array(layer["bias"])
    for i in range(config.depth):
        block = _block_to_prx(params, config, i)
        tensors |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def from_prx(
    tensors: Mapping[str, Any], config: TransformerConfig, *, factors: Params | None = None
) -> Params:
    """Converts a `PRXTransformer2DModel`'s state dict to equivalent parameters.

    The tensors may be arrays, or be read when NumPy asks for them, one after the other. With a
    shared modulation, ``config.modulation_rank`` must be large enough to represent the differences
    between the blocks' modulations; `hidden_size` always is. Raises `UsageError` if it is too
    small. `factors` are the parameters of a shared modulation that are known already, as
    ``{"modulation": ..., "blocks": {"modulation": ...}}`` (see `merges_to`); they are taken as they
    are.
    """
    params: Params = {}
    for ours, theirs in _outer(config).items():
        layer = {
            "kernel": _array(tensors[f"{theirs}.weight"]).T.copy(),
            "bias": _array(tensors[f"{theirs}.bias"]),
        }
        _set(params, ours, layer)
    params["blocks"] = {}
    for i in range(config.depth):
        _fill(params["blocks"], _block_from_prx(tensors, config, i), i, config.depth)
    if config.modulation == "per_block":
        return params
    if factors is None:
        modulation, per_block = _factorise_modulation(tensors, config)
        factors = {"modulation": modulation, "blocks": {"modulation": per_block}}
    params["modulation"] = factors["modulation"]
    params["blocks"]["modulation"] = factors["blocks"]["modulation"]
    return params


def merges_to(factors: Params, tensors: Mapping[str, Any], config: TransformerConfig) -> bool:
    """Returns whether `to_prx` makes the modulation in `tensors` of a shared modulation's
    parameters.

    A number may differ by its last bit: another machine adds the products of a map in another
    order, which can round a sum differently.
    """
    for i in range(config.depth):
        for name, merged in _merged_modulation(factors, config, i).items():
            stored = np.asarray(tensors[f"blocks.{i}.{name}"])
            if stored.dtype != merged.dtype or stored.shape != merged.shape:
                return False
            last_bit = np.spacing(np.maximum(np.abs(stored), np.abs(merged)))
            if not (np.abs(stored - merged) <= last_bit).all():  # also for NaN
                return False
    return True


def _outer(config: TransformerConfig) -> dict[str, str]:
    names = {o: t for o, t in OUTER.items() if config.resolution_embeds or "resolution" not in o}
    if config.bottleneck_size:
        return names | {"bottleneck_in": "img_in.0", "image_in": "img_in.1"}
    return names | {"image_in": "img_in"}


def _pair_order(head_dim: int) -> np.ndarray:
    """Returns the index in our head of each feature of diffusers' head."""
    return np.arange(head_dim).reshape(2, head_dim // 2).T.reshape(-1)


def _to_pairs(kernel: np.ndarray, config: TransformerConfig) -> np.ndarray:
    heads = kernel.reshape(-1, config.num_heads, config.head_dim)
    return heads[..., _pair_order(config.head_dim)].reshape(kernel.shape)


def _to_halves(kernel: np.ndarray, config: TransformerConfig) -> np.ndarray:
    heads = kernel.reshape(-1, config.num_heads, config.head_dim)
    return heads[..., np.argsort(_pair_order(config.head_dim))].reshape(kernel.shape)


def _block_to_prx(params: Params, config: TransformerConfig, i: int) -> Tensors:
    blocks = params["blocks"]
    attention = {
        name: _array(layer["kernel"][i])
        for name, layer in blocks["attention"].items()
        if "kernel" in layer
    }
    for name in ("query", "key", "text_key"):
        attention[name] = _to_pairs(attention[name], config)
    image = [attention[name].T for name in ("query", "key", "value")]
    text = [attention[name].T for name in ("text_key", "text_value")]
    tensors = {
        "attention.img_qkv_proj.weight": np.concatenate(image),
        "attention.txt_kv_proj.weight": np.concatenate(text),
        "attention.to_out.0.weight": attention["out"].T,
        **_merged_modulation(params, config, i),
    }
    for ours, theirs in NORMS.items():
        scale = _array(blocks["attention"][ours]["scale"][i])
        tensors[f"attention.{theirs}.weight"] = scale[_pair_order(config.head_dim)]
    for ours, theirs in MLP.items():
        tensors[f"{theirs}.weight"] = _array(blocks["mlp"][ours]["kernel"][i]).T
    return tensors


def _merged_modulation(params: Params, config: TransformerConfig, i: int) -> Tensors:
    """Returns the whole map of a block's modulation, in the layout of diffusers."""
    own = params["blocks"]["modulation"]
    if config.modulation == "per_block":
        weight, bias = _array(own["kernel"][i]), _array(own["bias"][i])
    else:
        shared = params["modulation"]
        weight = _array(shared["kernel"], np.float64)
        if config.modulation_rank:
            a, b = (_array(own[name]["kernel"][i], np.float64) for name in ("a", "b"))
            weight = weight + a @ b
        bias = _array(shared["bias"], np.float64) + _array(own["table"][i], np.float64)
    return {
        "modulation.lin.weight": np.ascontiguousarray(weight.T.astype(np.float32)),
        "modulation.lin.bias": bias.astype(np.float32),
    }


def _block_from_prx(tensors: Mapping[str, Any], config: TransformerConfig, i: int) -> Params:
    def get(name: str) -> np.ndarray:
        return _array(tensors[f"blocks.{i}.{name}.weight"])

    query, key, value = np.split(get("attention.img_qkv_proj").T, 3, axis=1)
    text_key, text_value = np.split(get("attention.txt_kv_proj").T, 2, axis=1)
    attention: Params = {
        "query": {"kernel": _to_halves(query, config)},
        "key": {"kernel": _to_halves(key, config)},
        "value": {"kernel": value},
        "text_key": {"kernel": _to_halves(text_key, config)},
        "text_value": {"kernel": text_value},
        "out": {"kernel": get("attention.to_out.0").T},
    }
    for ours, theirs in NORMS.items():
        scale = get(f"attention.{theirs}")
        attention[ours] = {"scale": scale[np.argsort(_pair_order(config.head_dim))]}
    mlp = {ours: {"kernel": get(theirs).T} for ours, theirs in MLP.items()}
    block: Params = {"attention": attention, "mlp": mlp}
    if config.modulation == "per_block":
        bias = _array(tensors[f"blocks.{i}.modulation.lin.bias"])
        block["modulation"] = {"kernel": get("modulation.lin").T, "bias": bias}
    return block


def _factorise_modulation(
    tensors: Mapping[str, Any], config: TransformerConfig
) -> tuple[Params, Params]:
    """Returns the shared map (the mean over blocks) and each block's table and truncated SVD."""
    names = [f"blocks.{i}.modulation.lin" for i in range(config.depth)]
    weights = np.stack([_array(tensors[f"{name}.weight"], np.float64).T for name in names])
    biases = np.stack([_array(tensors[f"{name}.bias"], np.float64) for name in names])
    kernel, bias = weights.mean(axis=0), biases.mean(axis=0)
    per_block: Params = {"table": (biases - bias).astype(np.float32)}
    left, size, right = np.linalg.svd(weights - kernel, full_matrices=False)
    rank = config.modulation_rank
    lost, scale = size[:, rank:], float(np.linalg.norm(weights, axis=(1, 2)).max())
    if lost.size and float(lost.max()) > 1e-6 * scale:
        needed = int((size > 1e-6 * scale).sum(axis=1).max())
        raise UsageError(
            f"modulation_rank: {rank} cannot hold these weights' modulation, which needs {needed} "
            f"(hidden_size {config.hidden_size} always suffices)"
        )
    if rank:
        root = np.sqrt(size[:, None, :rank])
        pad = ((0, 0), (0, 0), (0, max(rank - size.shape[1], 0)))
        a, b = left[..., :rank] * root, np.swapaxes(right, 1, 2)[..., :rank] * root
        per_block["a"] = {"kernel": np.pad(a, pad).astype(np.float32)}
        per_block["b"] = {"kernel": np.swapaxes(np.pad(b, pad), 1, 2).astype(np.float32)}
    shared = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    return shared, per_block


def _array(x: Any, dtype: Any = np.float32) -> np.ndarray:
    return np.asarray(x, dtype)


def _get(params: Params, path: str) -> Params:
    for name in path.split("."):
        params = params[name]
    return params


def _set(params: Params, path: str, value: Params) -> None:
    *parents, last = path.split(".")
    for name in parents:
        params = params.setdefault(name, {})
    params[last] = value


def _fill(stack: Params, block: Params, i: int, depth: int) -> None:
    """Copies the arrays of block `i` into arrays of all blocks, which are made when missing."""
    for name, value in block.items():
        if isinstance(value, dict):
            _fill(stack.setdefault(name, {}), value, i, depth)
        else:
            stack.setdefault(name, np.empty((depth, *value.shape), value.dtype))[i] = value
