"""The format of packed datasets: packs of records, their indexes, and the manifest."""
