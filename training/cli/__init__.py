"""Training commands of the `rgsiam` program."""
