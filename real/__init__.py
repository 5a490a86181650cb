"""Policies on real machines: serving them to robots."""
