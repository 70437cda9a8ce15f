"""Frozen networks in JAX, read from Hugging Face directories: autoencoders and text encoders."""
