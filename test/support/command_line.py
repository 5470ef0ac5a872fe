"""The command `rgsiam`."""

import subprocess
import sys


def rgsiam(*arguments, **options):
    """Run `rgsiam` with these arguments. The options are those of `subprocess.run`."""
    command = [sys.executable, "-m", "rgsiam_ros.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)
