"""Composition: GenEval's tasks on scenes, with intervals, a ceiling and a floor."""
