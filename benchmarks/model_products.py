"""Counts the matrix products of a training step of our transformer, and their arithmetic.

A linear map of ``m`` rows from ``k`` to ``n`` features takes ``2 m k n`` operations forward, as
many for the gradient of its weights, and as many for the gradient of its input, which the first
maps need not compute. Attention has two products for each head, with two gradients each. Nothing
else is counted: norms, modulation, softmax, activations and AdamW are no matrix products.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

FORWARD, WEIGHTS, INPUT = "forward", "weight gradient", "input gradient"


@dataclass(frozen=True)
class Product:
    """A product ``(batch, m, k) @ (batch, k, n)``, how it is stored, and how often it occurs."""

    m: int
    k: int
    n: int
    batch: int = 1
    left: bool = False
    """Whether the left factor is stored transposed, as for the gradient of weights."""
    right: bool = False
    """Whether the right factor is stored transposed, as for the gradient of an input."""
    count: int = 1

    @property
    def operations(self) -> int:
        """The number of multiplications and additions, all occurrences together."""
        return 2 * self.batch * self.m * self.k * self.n * self.count

    @property
    def shape(self) -> tuple[int, int, int, int, bool, bool]:
        """The product without its count."""
        return self.batch, self.m, self.k, self.n, self.left, self.right


def linear(rows: int, inputs: int, outputs: int, *, count: int = 1, first: bool = False):
    """Yields a linear map's products in a training step; the first map's input has no gradient."""
    yield Product(rows, inputs, outputs, count=count)
    yield Product(inputs, rows, outputs, left=True, count=count)
    if not first:
        yield Product(rows, outputs, inputs, right=True, count=count)


def attention(batch: int, queries: int, keys: int, width: int, *, count: int = 1):
    """Yields the products of attention; `batch` counts the heads of all pictures."""
    yield Product(queries, width, keys, batch, right=True, count=count)  # scores
    yield Product(queries, keys, width, batch, count=count)  # weighted values
    yield Product(keys, queries, width, batch, left=True, count=2 * count)  # to values, to keys
    yield Product(queries, width, keys, batch, right=True, count=count)  # to weights
    yield Product(queries, keys, width, batch, count=count)  # to queries


def step_products(config: Any, *, batch: int, grid: int, text: int) -> list[Product]:
    """Returns the products of a training step, equal ones together.

    `config` is a `TransformerConfig` without recomputation (remat "none"), `grid` the side of the
    latents in cells, and `text` the number of text tokens.
    """
    width, hidden, depth = config.hidden_size, config.mlp_hidden, config.depth
    tokens = (grid // config.patch_size) ** 2
    image, words = batch * tokens, batch * text
    cells = config.in_channels * config.patch_size**2
    bottleneck = config.bottleneck_size
    all_products = [
        *(linear(image, cells, bottleneck, first=True) if bottleneck else ()),
        *linear(image, bottleneck or cells, width, first=not bottleneck),
        *linear(words, config.context_dim, width, first=True),
        *linear(batch, 256, width, first=True),
        *linear(batch, width, width),
        *linear(batch, width, 2 * width),
        *linear(image, width, cells),
        *linear(image, width, width, count=4 * depth),  # query, key, value, output
        *linear(words, width, width, count=2 * depth),  # text keys and values
        *linear(image, width, hidden, count=2 * depth),
        *linear(image, hidden, width, count=depth),
        *attention(batch * config.num_heads, tokens, text + tokens, config.head_dim, count=depth),
    ]
    if config.modulation == "per_block":
        all_products += linear(batch, width, 6 * width, count=depth)
    else:
        all_products += linear(batch, width, 6 * width)
    if config.modulation_rank:
        all_products += linear(batch, width, config.modulation_rank, count=depth)
        all_products += linear(batch, config.modulation_rank, 6 * width, count=depth)
    return gathered(all_products)


def gathered(products: Iterable[Product]) -> list[Product]:
    """Returns the products with equal ones merged, the most arithmetic first."""
    counts: dict[tuple[Any, ...], int] = {}
    for product in products:
        counts[product.shape] = counts.get(product.shape, 0) + product.count
    merged = [
        Product(m, k, n, batch, left, right, count)
        for (batch, m, k, n, left, right), count in counts.items()
    ]
    return sorted(merged, key=lambda product: -product.operations)


def operations(products: Iterable[Product]) -> int:
    """Returns the arithmetic of all products."""
    return sum(product.operations for product in products)
