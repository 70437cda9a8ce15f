"""Several devices and hosts as one: the mesh, partition rules, transfers and processes."""
