"""DPG-Bench, a benchmark of long prompts: its questions, and its rules on the answers to them."""
