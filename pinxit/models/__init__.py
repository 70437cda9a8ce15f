"""The transformer, its attention kernels, and the conversion of its parameters to diffusers."""
