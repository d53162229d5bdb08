"""Lipschitz constants of networks: proven upper bounds, attained lower bounds, and how they move with the leak."""
