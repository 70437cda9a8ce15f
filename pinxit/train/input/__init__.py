"""Sources of a run's batches: rows in memory, a prepared dataset, or a stream."""
