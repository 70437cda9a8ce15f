"""The studio: a web page and an HTTP API for drawing, training runs, datasets and plans."""
