"""The output of the `rgsiam` program: results on standard output, log messages on standard error."""

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
    """Prints each log message on one line. Warnings and errors begin with their level."""

    def render(self, *, record: logging.LogRecord, **_: object) -> ConsoleRenderable:
        """The text of a log record, without markup, table or line breaks."""
        text = Text(record.getMessage())
        style = STYLES.get(record.levelno)
        if style is None:
            return text
        return Text.assemble((f"{record.levelname.lower()}: ", style), text)


def log_to_terminal() -> None:
    """Print the log messages of `PACKAGES` from level INFO. Loggers of other packages are left unchanged."""
    handler = MessageHandler(console=Console(stderr=True, soft_wrap=True))
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]
        logger.propagate = False
