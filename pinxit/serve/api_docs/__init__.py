"""The page that shows the API: our own, since FastAPI's loads scripts from other servers."""
