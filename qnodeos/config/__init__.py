"""Reading configuration files: YAML 1.2 (or JSON) checked against a pydantic model.

A file either becomes a valid model or a `qnodeos.errors.ConfigurationError` that names
the file, the line, the field and what to do.
"""

from __future__ import annotations

from qnodeos.config.loader import load_config, parse_config

__all__ = ["load_config", "parse_config"]
