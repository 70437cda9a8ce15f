"""Prepares a dataset: fetches, filters, decodes and encodes it once. It may be interrupted."""
