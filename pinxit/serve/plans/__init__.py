"""Makes plans of training runs on request, one at a time."""
