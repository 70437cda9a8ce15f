"""Fetches images by URL: guarded against private addresses, polite to hosts, bounded in memory."""
