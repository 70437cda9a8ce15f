"""What a run shows people: sample grids, curves and the one-page report."""
