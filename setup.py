"""The one thing pyproject.toml cannot say yet: the C extension of the tick engine.

It is optional: where there is no C compiler, qnodeos is installed without it, and uses the
pure-Python engine, which says so.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("qnodeos", "engine", "csrc")
# An extension that is older than its sources is told by this number.
DIGEST = runpy.run_path(str(Path("qnodeos", "engine", "sources.py")))["digest_of"](SOURCES)

setup(
    ext_modules=[
        Extension(
            "qnodeos.engine._native",
            sources=sorted(str(path) for path in SOURCES.glob("*.c")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            # One build for Python 3.11 and everything later.
            define_macros=[
                ("Py_LIMITED_API", "0x030B0000"),
                ("_GNU_SOURCE", None),
                ("SOURCE_DIGEST", f'"{DIGEST}"'),
            ],
            py_limited_api=True,
            extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
            libraries=["pthread"],
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
