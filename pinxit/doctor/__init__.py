"""`pinxit doctor`: examines a machine or a run, and reports problems with advice."""
