"""Data code that training and preparing share: sources, fetching, decoding, shards, loaders."""
