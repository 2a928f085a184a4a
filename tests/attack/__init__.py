"""What one request, one token or one attacker can cost: bounded here, at full size with ATTACK=1 (`make attack`).

Each trial prints its figures (`-s`): memory of the center, time, bytes. On loopback, against centers of their own.
"""

import os

FULL = bool(os.environ.get("ATTACK"))
