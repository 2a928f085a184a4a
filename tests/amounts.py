"""How much is tried: `make test` takes a few cases and small sizes; MARKED=1, as in .ci/run, all there are. What is
drawn by chance is the same each time, but with EXPLORE=1; SEED=… repeats one.
"""

import os
import random

import pytest

MARKED, EXPLORE = (bool(os.environ.get(name)) for name in ("MARKED", "EXPLORE"))
SEED = int(os.environ.get("SEED", random.randrange(10**6) if EXPLORE else 21))


def amount(few, all_of_them):
    """How many examples, seeds or rounds."""
    return all_of_them if MARKED else few


def first(few, *cases):
    """The cases of a parametrize: from so many on they are slow."""
    return [case if at < few else pytest.param(*_values(case), marks=pytest.mark.slow) for at, case in enumerate(cases)]


def _values(case):
    return case if isinstance(case, tuple) else (case,)
