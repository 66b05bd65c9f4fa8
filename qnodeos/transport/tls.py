"""Mutual TLS from three files: both ends show a certificate of the same authority.

A certificate names the node it belongs to as a DNS entry of its subjectAltName. Who dials
checks that name; who listens reads it from `names_of`. Version 1.3 only: both ends are ours.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from qnodeos.errors import ConfigurationError


class TlsFiles(BaseModel):
    """The files of one end, in PEM format."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Path = Field(description="certificate of this node, followed by intermediate ones")
    key: Path = Field(description="its private key; must not be readable by others")
    authority: Path = Field(description="certificate of the authority that all nodes trust")

    def relative_to(self, folder: Path) -> TlsFiles:
        """The same files, with relative paths taken from a folder."""
        return TlsFiles(
            certificate=folder / self.certificate,
            key=folder / self.key,
            authority=folder / self.authority,
        )

    def server_context(self) -> ssl.SSLContext:
        """For accepting; refuses clients without a certificate of the authority.

        Raises:
            ConfigurationError: a file is missing, unreadable or does not fit the others.
        """
        return _context(self, ssl.PROTOCOL_TLS_SERVER)

    def client_context(self) -> ssl.SSLContext:
        """For connecting; refuses servers without a certificate of the authority.

        Raises:
            ConfigurationError: a file is missing, unreadable or does not fit the others.
        """
        return _context(self, ssl.PROTOCOL_TLS_CLIENT)


@lru_cache(maxsize=16)
def _context(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    with _blaming(files.authority):
        context.load_verify_locations(files.authority)
    with _blaming(files.key):
        _check_key(files.key)
    with _blaming(files.certificate):
        context.load_cert_chain(files.certificate, files.key)
    return context


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"TLS cannot use it: {error}; see docs/deployment.md for making certificates",
            file=str(path),
        ) from error


def _check_key(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(
            "the private key can be read by others; chmod 600 it", file=str(path)
        )


def names_of(connection: ssl.SSLSocket | ssl.SSLObject) -> tuple[str, ...]:
    """The names in the other end's certificate (DNS entries of its subjectAltName)."""
    certificate = connection.getpeercert() or {}
    entries = certificate.get("subjectAltName", ())
    return tuple(str(entry[1]) for entry in entries if entry[0] == "DNS")
