"""A runtime that starts a process of its own, which outlives it and holds its standard error open."""

from __future__ import annotations

import subprocess
import sys

from lockstep.server.core.artifact import ArtifactSpec, Budget
from tests.doubles import BurningAdapter


class AdapterWithChild(BurningAdapter):
    """Starts its child when it is loaded."""

    @classmethod
    def load(cls, artifact: ArtifactSpec, budget: Budget) -> BurningAdapter:
        """Load the artifact, and leave a process behind."""
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        return super().load(artifact, budget)
