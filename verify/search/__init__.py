"""Looking for counterexamples, and deciding what bounds cannot."""
