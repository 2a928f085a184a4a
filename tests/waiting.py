"""The one way in which a test waits for what another thread or process does."""

import time


def wait_for(condition, seconds=40):
    """What it gives, once that is true; the time is far beyond what a loaded machine takes."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found
