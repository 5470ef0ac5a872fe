"""Loaders for datasets of images with known poses. Each format has a module; all return the same types."""
