"""What the `rgsiam` program prints: results on standard output, its log on standard error."""

from __future__ import annotations

import logging

from rich.console import Console, ConsoleRenderable
from rich.logging import RichHandler
from rich.text import Text

console = Console()
"""Standard output: results, tables, progress bars."""
STYLES = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}
PACKAGES = ("rgsiam_ros", "rgsiam_training")


class MessageHandler(RichHandler):
    """Prints the message alone, and before a warning or an error its level."""

    def render(self, *, record: logging.LogRecord, **_: object) -> ConsoleRenderable:
        """The message as it is: no markup, no table, no line breaks."""
        text = Text(record.getMessage())
        style = STYLES.get(record.levelno)
        if style is None:
            return text
        return Text.assemble((f"{record.levelname.lower()}: ", style), text)


def log_to_terminal() -> None:
    """Show what the package logs, from INFO on. The loggers of other packages stay as they are."""
    handler = MessageHandler(console=Console(stderr=True, soft_wrap=True))
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]
        logger.propagate = False
