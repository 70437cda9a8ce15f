"""Writes packed datasets: the work of `pinxit pack`."""
