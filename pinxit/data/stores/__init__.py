"""Reads and writes files by name below a root: a local folder or an object store."""
