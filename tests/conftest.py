"""Settings for the whole suite.

Hypothesis draws the same examples on every run and on every machine, and puts no time
limit on one. To hunt for new counterexamples: `pytest --hypothesis-profile=explore`.
"""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile("repeatable")

# A shell without job control starts what it puts in the background with SIGINT ignored, and so
# would every process be that a test starts, also those that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
