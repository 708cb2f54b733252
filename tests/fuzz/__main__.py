"""Run the properties for so many seconds; ends with 1 and the smallest case at the first that is broken."""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time

from tests.fuzz.driver import broken_by
from tests.fuzz.properties import properties

_EXAMPLES = 100  # of one property at a stretch
_MOST_GROWTH_BYTES = 256 << 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", help="one property")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--atheris", action="store_true", help="let atheris make the bytes (pip install atheris)")
    options = parser.parse_args()
    with properties() as all_properties:
        chosen = {name: one for name, one in all_properties.items() if options.only in (None, name)}
        if not chosen:
            parser.error(f"there are {', '.join(all_properties)}")
        if options.atheris:
            from tests.fuzz.with_atheris import fuzz

            fuzz({name: one for name, one in chosen.items() if one.of_bytes}, options.seconds, options.seed)
        began_s, seed, examples = time.monotonic(), options.seed, 0
        before_bytes = _peak_bytes()
        while (elapsed_s := time.monotonic() - began_s) < options.seconds:
            for name, one in chosen.items():
                if time.monotonic() - began_s >= options.seconds:
                    break
                error = broken_by(one, examples=_EXAMPLES, seed=seed)
                if error is not None:
                    print(f"\n{name} is broken (--only {name!r} --seed {seed}):", file=sys.stderr)
                    raise error
                examples += _EXAMPLES
            seed += 1
            grown_bytes = _peak_bytes() - before_bytes
            print(f"\r{elapsed_s:6.0f} s, {examples} cases, {grown_bytes >> 20} MiB grown ", end="", file=sys.stderr)
            if grown_bytes > _MOST_GROWTH_BYTES:
                print("\nmemory grew without bound", file=sys.stderr)
                return 1
    print(f"\n{examples} cases in {time.monotonic() - began_s:.0f} s: every promise held", file=sys.stderr)
    return 0


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
