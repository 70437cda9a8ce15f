"""Flow matching, free of any model: path, time, objective, guidance and solvers."""
