"""Answers: bounds, verdicts, counterexamples."""
