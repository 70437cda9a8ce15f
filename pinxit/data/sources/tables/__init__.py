"""Tables of captions with URLs or images: parquet, CSV, TSV and JSONL."""
