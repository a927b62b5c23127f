"""The image: built by its script, run on the real Docker engine."""
