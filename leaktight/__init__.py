"""Formal verification of certified robustness for Leaky ReLU networks."""
