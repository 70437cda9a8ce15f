"""`pinxit doctor`: looks at a machine, and at a run, and says what is wrong and what to do."""
