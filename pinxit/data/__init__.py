"""What training and preparing both read: sources, fetching, decoding, shards and the loader."""
