"""Writers of metrics and sample grids: JSON lines, and the trackers that ``--log`` names."""
