"""Reads captions with image URLs or images from tables, folders, tars and the Hugging Face hub."""
