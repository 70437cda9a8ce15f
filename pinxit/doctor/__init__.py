"""`pinxit doctor`: examines a machine or a run, and says what is wrong and what to do."""
