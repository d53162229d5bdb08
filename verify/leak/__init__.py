"""Certificates as functions of the slope: how a margin moves when the leak of the Leaky ReLUs moves."""
