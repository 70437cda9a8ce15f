"""Output of a run for people: sample grids, curves and the one-page report."""
