"""Shows prepared datasets: their figures, their pictures, and the outcome of every row."""
