"""Reads a dataset that `pinxit prepare` wrote: its manifest, shards and rows."""
