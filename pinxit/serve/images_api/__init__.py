"""The HTTP API for drawing, in the shape of OpenAI's images API, with jobs beside it."""
