"""The transformer, its attention kernels, and its parameter names in diffusers."""
