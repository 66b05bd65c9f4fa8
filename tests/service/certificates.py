"""Certificates for tests: made in memory, written where a test wants them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import trustme

from qnodeos.transport import TlsFiles


class Authority:
    """A certificate authority of a test."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    def issue(
        self,
        folder: Path,
        *names: str,
        not_after: datetime | None = None,
        trusts: Authority | None = None,
    ) -> TlsFiles:
        """Write a certificate for names, its key, and the authority its owner trusts."""
        folder.mkdir(parents=True, exist_ok=True)
        issued = self._authority.issue_cert(*names, not_after=not_after)
        files = TlsFiles(
            certificate=folder / "certificate.pem",
            key=folder / "key.pem",
            authority=folder / "authority.pem",
        )
        files.key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(str(files.key))
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        files.certificate.write_bytes(chain)
        trusted = (trusts or self)._authority
        trusted.cert_pem.write_to_path(str(files.authority))
        return files
