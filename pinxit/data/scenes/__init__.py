"""Scenes, the embedded dataset: captioned landscapes drawn by index, with held-out combinations."""
