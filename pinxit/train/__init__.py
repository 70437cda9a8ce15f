"""`pinxit train`: settings, optimiser, step, loop and checkpoints of a run."""
