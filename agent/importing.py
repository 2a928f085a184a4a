"""One lock for importing influxdb_client, which several threads need for the first time at about the same moment.

Its modules import each other in a circle: two threads that enter it at different ends get a _DeadlockError or an
ImportError, and a reading would be lost.
"""

from __future__ import annotations

import threading

IMPORTING = threading.Lock()
