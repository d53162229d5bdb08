"""Bounds of a network over a region, one engine a module."""
