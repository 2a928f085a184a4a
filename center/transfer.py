"""What an answer weighs on the way: gzipped for whoever takes that, and not sent again to who has it already.

With zlib alone: Flask-Compress wants brotli, which has no wheel on 32 bit. What shows a secret is left as it is: its
length, compressed beside what another site made the browser ask for, would tell of it (BREACH). Tokens and keys are
shown in answers to POST and by the registration API, which uses none of this. Whatever else a page holds (the token of
its forms) another site cannot have it asked for: see guard.foreign.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

from flask import Response, request

WORTH = 500  # bytes; less fits a packet anyway
LEVEL = 5
TYPES = {"text/html", "text/csv", "application/json"}
_AGES = re.compile(rb"data-ago>[^<]*<")  # which pages keep fresh by themselves


def lighter(response: Response) -> Response:
    """After a request of a blueprint whose answers may be gzipped and asked for on condition that they changed."""
    if request.method != "GET" or response.status_code != 200 or response.mimetype not in TYPES:
        return response
    packer = zlib.compressobj(LEVEL, wbits=31)  # 31: with gzip's header
    streamed = response.is_streamed
    if not streamed:
        told = _AGES.sub(b"", response.get_data())
        response.set_etag(f"{len(told):x}-{zlib.crc32(told):08x}-{zlib.adler32(told):08x}", weak=True)
        response.make_conditional(request)
        if response.status_code == 304 or len(told) < WORTH:
            return response
    response.vary.add("Accept-Encoding")
    if request.accept_encodings.quality("gzip") > 0:
        pieces = _packed(packer, response.iter_encoded())
        if streamed:
            response.response = pieces
        else:
            response.set_data(b"".join(pieces))
        response.headers["Content-Encoding"] = "gzip"
    return response


def _packed(packer: zlib._Compress, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()
