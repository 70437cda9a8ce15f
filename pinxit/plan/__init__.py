"""`pinxit plan`: estimates a run's memory, time and cost with the vendor's own compiler."""
