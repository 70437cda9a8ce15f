"""Where a run's batches come from: rows in memory, a prepared dataset, or a stream."""
