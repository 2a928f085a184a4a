"""Requests of another machine, as far as loopback has them."""

from requests.adapters import HTTPAdapter


class From(HTTPAdapter):
    """Mounted in a session: its requests come from this address of 127.0.0.0/8."""

    def __init__(self, address):
        self.address = address
        super().__init__()

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, source_address=(self.address, 0), **kwargs)
