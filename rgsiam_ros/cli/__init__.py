"""The `rgsiam` program."""
