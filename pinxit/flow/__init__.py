"""Flow matching, independent of any model: path, time, objective, guidance and solvers."""
