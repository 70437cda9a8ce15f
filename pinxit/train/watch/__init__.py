"""Notices what goes wrong during a run, and says what to do."""
