"""`pinxit prepare`: fetches, filters, decodes and encodes a dataset once, and may be stopped."""
