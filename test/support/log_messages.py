"""Log messages where pytest's `caplog` is not at hand: in fixtures of a module, in other processes."""

import logging
from contextlib import contextmanager


@contextmanager
def log_messages(logger_name):
    """A list that the messages of a logger go to, from INFO on, in their order."""
    messages = []
    handler, logger = logging.Handler(), logging.getLogger(logger_name)
    handler.emit = lambda record: messages.append(record.getMessage())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
