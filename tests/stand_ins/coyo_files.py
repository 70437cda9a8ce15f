"""Small files in COYO's released form, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def coyo_columns(rows: int, *, first: int = 0, base: str = "http://images.test") -> dict[str, Any]:
    """COYO-700M's columns for `rows` rows, all of which pass the default filters."""
    numbers = range(first, first + rows)
    return {
        "id": pa.array([841814333321 + 7 * i for i in numbers], pa.int64()),
        "url": [f"{base}/{i}.jpg" for i in numbers],
        "text": [f"a picture of thing number {i}" for i in numbers],
        "width": pa.array([512 + i % 7 for i in numbers], pa.int32()),
        "height": pa.array([400 + i % 5 for i in numbers], pa.int32()),
        "image_phash": [f"{i * 2654435761 % 2**64:016x}" for i in numbers],
        "text_length": [28] * rows,
        "word_count": [6] * rows,
        "num_tokens_bert": [9] * rows,
        "num_tokens_gpt": [9] * rows,
        "num_faces": [0] * rows,
        "clip_similarity_vitb32": [0.29] * rows,
        "clip_similarity_vitl14": [0.25] * rows,
        "nsfw_score_opennsfw2": pa.array([0.01] * rows, pa.float32()),
        "nsfw_score_gantman": pa.array([0.02] * rows, pa.float32()),
        "watermark_score": pa.array([0.1] * rows, pa.float32()),
        "aesthetic_score_laion_v2": pa.array([5.5] * rows, pa.float32()),
    }


def write_coyo(path: Path, rows: int, *, group: int = 10_000, **changes: Any) -> Path:
    """A snappy parquet in COYO's form; `changes` replace columns (None drops one)."""
    columns = {**coyo_columns(rows), **changes}
    kept = {name: values for name, values in columns.items() if values is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(kept), path, row_group_size=group, compression="snappy")
    return path
