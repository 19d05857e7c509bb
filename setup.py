"""What pyproject.toml cannot say: the wheel carries the built-in probes, compiled for every machine that can be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCES = Path(__file__).parent / "src"


class BuildWithProbes(build_py):
    """Copies the package, and compiles its probes into the copy; a checkout compiles its own (`make setup`)."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib).absolute() / "yamori" / "llview" / "built"
        command = [sys.executable, "-m", "yamori.probes.ahead", "--all", "--into", str(built)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(SOURCES)})


setup(cmdclass={"build_py": BuildWithProbes})
