"""Converts our parameters to and from diffusers' `PRXTransformer2DModel`; both are exact.

Three things differ. Linear kernels are transposed. Inside a head, diffusers stores the two members
of a rotated pair side by side, and we store them in two halves, so the columns of query and key
maps and their norms are reordered, which changes no attention score. And diffusers has a whole
modulation map per block, where we have a shared map with a per-block table and a low-rank
correction::

    W_i = W_shared + A_i B_i          bias_i = bias_shared + table_i

When converting from diffusers, the shared map is the mean over blocks, and each block stores its
difference from it, which a correction of full rank can always represent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.models.attention import head_axes
from pinxit.models.transformer import Params, TransformerConfig

Tensors = dict[str, np.ndarray]

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
        "_class_name": "PRXTransformer2DModel",
        "in_channels": config.in_channels,
        "patch_size": config.patch_size,
        "context_in_dim": config.context_dim,
        "hidden_size": config.hidden_size,
        "mlp_ratio": config.mlp_ratio,
        "num_heads": config.num_heads,
        "depth": config.depth,
        "axes_dim": list(head_axes(config.head_dim)),
        "theta": config.rope_theta,
        "time_factor": config.time_factor,
        "time_max_period": config.time_max_period,
        "bottleneck_size": config.bottleneck_size,
        "resolution_embeds": config.resolution_embeds,
    }


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


def from_prx(tensors: Mapping[str, np.ndarray], config: TransformerConfig) -> Params:
    """Converts a `PRXTransformer2DModel`'s state dict to equivalent parameters.

    ``config.modulation_rank`` must be large enough to represent the differences between the blocks'
    modulations; `hidden_size` always is. Raises `UsageError` if it is too small.
    """
    params: Params = {}
    for ours, theirs in _outer(config).items():
        layer = {
            "kernel": _array(tensors[f"{theirs}.weight"]).T.copy(),
            "bias": _array(tensors[f"{theirs}.bias"]),
        }
        _set(params, ours, layer)
    blocks = [_block_from_prx(tensors, config, i) for i in range(config.depth)]
    params["blocks"] = _stack(blocks)
    modulation, per_block = _factorise_modulation(tensors, config)
    params["modulation"] = modulation
    params["blocks"]["modulation"] = per_block
    return params


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
    modulation, shared = blocks["modulation"], params["modulation"]
    weight = _array(shared["kernel"], np.float64)
    if config.modulation_rank:
        a, b = (_array(modulation[name]["kernel"][i], np.float64) for name in ("a", "b"))
        weight = weight + a @ b
    bias = _array(shared["bias"], np.float64) + _array(modulation["table"][i], np.float64)
    tensors = {
        "attention.img_qkv_proj.weight": np.concatenate(image),
        "attention.txt_kv_proj.weight": np.concatenate(text),
        "attention.to_out.0.weight": attention["out"].T,
        "modulation.lin.weight": weight.T.astype(np.float32),
        "modulation.lin.bias": bias.astype(np.float32),
    }
    for ours, theirs in NORMS.items():
        scale = _array(blocks["attention"][ours]["scale"][i])
        tensors[f"attention.{theirs}.weight"] = scale[_pair_order(config.head_dim)]
    for ours, theirs in MLP.items():
        tensors[f"{theirs}.weight"] = _array(blocks["mlp"][ours]["kernel"][i]).T
    return tensors


def _block_from_prx(tensors: Mapping[str, np.ndarray], config: TransformerConfig, i: int) -> Params:
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
    return {"attention": attention, "mlp": mlp}


def _factorise_modulation(
    tensors: Mapping[str, np.ndarray], config: TransformerConfig
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


def _stack(blocks: list[Params]) -> Params:
    first = blocks[0]
    return {
        name: _stack([block[name] for block in blocks])
        if isinstance(first[name], dict)
        else np.stack([block[name] for block in blocks])
        for name in first
    }
