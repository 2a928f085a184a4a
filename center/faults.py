"""Which faults of a store are known, so that the log says each once while it lasts, and that it is over."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from center.errors import StoreError

log = logging.getLogger(__name__)


class Faults:
    """Thread-safe. A fault that several kinds of calls meet (nothing answers) is one. Errors are marked, and told by
    whoever answers with them: `log_once`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, str] = {}

    @contextlib.contextmanager
    def noted(self, call: str) -> Iterator[None]:
        """Around each call of a kind. A refusal or a conflict is an answer: the store works."""
        try:
            yield
        except Exception as error:
            if type(error) is StoreError:
                known = self._failed(call, str(error))
                error.known = known if error.known is None else error.known
            else:
                self._works(call)
            raise
        self._works(call)

    def _failed(self, call: str, text: str) -> bool:
        with self._lock:
            known = text in self._of.values()
            self._of[call] = text
        return known

    def _works(self, call: str) -> None:
        if call not in self._of:  # without the lock: nearly always so
            return
        with self._lock:
            over = self._of.get(call)
            self._of = {other: text for other, text in self._of.items() if text != over}
        if over is not None:
            log.info("the store works again; it had failed with: %s", over)


def log_once(error: StoreError) -> None:
    if not error.known:
        log.error("the store fails: %s", error)
