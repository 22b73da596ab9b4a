"""Refuses JSON that some reader along the way could not take: every client, worker and encoder has its own limits."""

import re

from machineshop.errors import MalformedBody

# Far more than data has, far less than the recursion limits of the parsers that will meet it.
MAX_DEPTH = 100
# Python reads integers of up to 4,300 digits, other languages far fewer.
MAX_DIGITS = 400

_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_A_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def check_shape(body: bytes) -> None:
    """Look at the brackets and numbers of a JSON text, well-formed or not.

    Raises:
        MalformedBody: It is nested too deeply, or a number in it is too long.
    """
    deep = body.count(b"[") + body.count(b"{") > MAX_DEPTH
    long = len(body) > MAX_DIGITS and _LONG_NUMBER.search(body) is not None
    if not deep and not long:
        return
    bare = _STRING.sub(b"", body)
    if _LONG_NUMBER.search(bare):
        raise MalformedBody(f"A number in the request body has more than {MAX_DIGITS} digits; send it as a text.")
    depth = 0
    for bracket in bare.translate(None, _NOT_A_BRACKET):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise MalformedBody(f"The request body is nested more than {MAX_DEPTH} levels deep.")
