"""Runs units of work in this process, in local processes, by static rank, or on Ray."""
