"""The command-line program `rgsiam`."""
