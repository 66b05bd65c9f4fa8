"""A quantum network operating system for one node.

A program runs on the CNPU (`qnodeos.cnpu`) in classical blocks; its quantum blocks go as
NetQASM subroutines to the QNPU (`qnodeos.qnpu`), which schedules them together with the
network and drives the QDevice (`qnodeos.qdevice`) through a QDriver. The messages between
the parts are in `qnodeos.api`, what is recorded while they run in `qnodeos.trace`, and
the reading of configuration files in `qnodeos.config`. None of these imports anything of
the other folders; `qnodeos.assembly`, `qnodeos.experiments` and `qnodeos.cli` put the
operating system and a laboratory together.

The architecture is that of Delle Donne et al., "An operating system for executing
applications on quantum network nodes", Nature 639, 321-328 (2025),
doi:10.1038/s41586-025-08704-w. This is an independent implementation.
"""

from __future__ import annotations

from qnodeos._packages import check_packages

__version__ = "0.1.0"

check_packages()
