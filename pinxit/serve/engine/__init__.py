"""The engine: models in memory, the queue of pictures, batches, and jobs."""
