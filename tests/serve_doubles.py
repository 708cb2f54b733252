"""`lockstep` whose workers run the doubles: `python -m tests.serve_doubles serve ...`."""

from lockstep.cli import run
from lockstep.server.runtimes.registry import ADAPTERS
from tests import doubles

if __name__ == "__main__":
    ADAPTERS |= doubles.ADAPTERS | {"onnxruntime": "tests.doubles:BurningAdapter"}
    run()
