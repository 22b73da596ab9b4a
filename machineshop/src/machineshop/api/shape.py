"""Refuses JSON that some reader along the way could not take: every client, worker and encoder has its own limits."""

import re

from machineshop.errors import MalformedBody

# Far more than data has, far less than the recursion limits of the parsers that will meet it.
MAX_DEPTH = 100
# Looking at more would take longer than anything else about a request.
MAX_BRACKETS = 2_000_000
# Python reads integers of up to 4,300 digits, other languages far fewer.
MAX_DIGITS = 400

_ZEROS = b"0" * (MAX_DIGITS + 1)
_DIGITS_TO_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
# Without a way back (`++`, `*+`), so that it is over after one look at each byte, closed or not.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)', re.DOTALL)
_NOT_A_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_NEITHER_BRACKET_NOR_QUOTE = bytes(set(range(256)) - set(b'[]{}"'))


def check_shape(body: bytes) -> None:
    """Look at the brackets and numbers of a JSON text, well-formed or not.

    Raises:
        MalformedBody: It is nested too deeply, or a number in it is too long.
    """
    deep = body.count(b"[") + body.count(b"{") > MAX_DEPTH
    long = len(body) > MAX_DIGITS and _ZEROS in body.translate(_DIGITS_TO_ZEROS)
    if not deep and not long:
        return
    if long and _LONG_NUMBER.search(_bare(body)):
        raise MalformedBody(f"A number in the request body has more than {MAX_DIGITS} digits; send it as a text.")
    # Most of a body is neither; a backslash alone may make it matter what stands beside a quote.
    marks = body if b"\\" in body else body.translate(None, _NEITHER_BRACKET_NOR_QUOTE)
    brackets = _bare(marks).translate(None, _NOT_A_BRACKET)
    if len(brackets) > MAX_BRACKETS:
        raise MalformedBody(f"The request body has more than {MAX_BRACKETS} brackets and braces; send it in parts.")
    for _ in range(MAX_DEPTH):  # each takes the innermost level away
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        raise MalformedBody(
            f"The request body is nested more than {MAX_DEPTH} levels deep, or its brackets do not match."
        )


def _bare(body: bytes) -> bytes:
    """The body without what stands between quotes, which is text; only a backslash can make that hard to tell."""
    return _STRING.sub(b"", body) if b"\\" in body else b"".join(body.split(b'"')[::2])
