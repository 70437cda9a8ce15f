"""Detects problems during a run and reports advice."""
