"""Captions and image URLs, or images, from tables, folders, tar files and the Hugging Face hub."""
