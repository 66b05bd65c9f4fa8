"""The logger that SquidASM-style programs write to, with virtual time in its lines."""

from __future__ import annotations

import logging
import os
from typing import Final

from qnodeos.applications.squidasm.simulation import sim_time

_FORMAT: Final = "%(levelname)s:%(simtime)s ns:%(name)s:%(message)s"


class _VirtualTime(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.simtime = sim_time()
        return True


class LogManager:
    """Gives out loggers."""

    STACK_LOGGER: Final = "Stack"

    @classmethod
    def get_stack_logger(cls, sub_logger: str | None = None) -> logging.Logger:
        """The logger of all programs, or one below it."""
        logger = logging.getLogger(cls.STACK_LOGGER)
        if not logger.handlers:
            cls._add(logging.StreamHandler())
            logger.propagate = False
        return logger if sub_logger is None else logger.getChild(sub_logger)

    @classmethod
    def set_log_level(cls, level: int | str) -> None:
        """What is less important is not written."""
        cls.get_stack_logger().setLevel(level)

    @classmethod
    def get_log_level(cls) -> int:
        """What is less important is not written."""
        return cls.get_stack_logger().level

    @classmethod
    def log_to_file(cls, path: str | os.PathLike[str]) -> None:
        """Write to a file too; it is begun anew."""
        cls.get_stack_logger()
        cls._add(logging.FileHandler(path, mode="w"))

    @classmethod
    def _add(cls, handler: logging.Handler) -> None:
        handler.setFormatter(logging.Formatter(_FORMAT))
        handler.addFilter(_VirtualTime())
        logging.getLogger(cls.STACK_LOGGER).addHandler(handler)
