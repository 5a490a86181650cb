"""Specs, episodes, windows, normalisers and file formats. Imports nothing of ours."""
