"""Download public datasets, and inspect a dataset before training."""
