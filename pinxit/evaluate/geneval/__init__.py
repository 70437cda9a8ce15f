"""GenEval, a benchmark of composition for photographs: its prompts, and its rules on detections."""
