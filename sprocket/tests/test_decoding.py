from __future__ import annotations

import gzip
import zlib

import pytest

from sprocket.decoding import PIECE_BYTES, decoder_for
from sprocket.errors import InputError

TEXT = b"so long a text" * 1000


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(TEXT)), ("X-GZip", gzip.compress(TEXT)), ("deflate", zlib.compress(TEXT))],
    ids=["gzip", "x-gzip", "deflate"],
)
def test_a_body_is_decoded_in_whatever_pieces_it_comes(encoding: str, body: bytes) -> None:
    decoder = decoder_for(encoding)
    assert decoder is not None
    pieces = [piece for at in range(0, len(body), 7) for piece in decoder.decode(body[at : at + 7])]
    assert b"".join(pieces) == TEXT
    assert decoder.ended


def test_gzip_files_may_follow_one_another() -> None:
    decoder = decoder_for("gzip")
    assert decoder is not None
    assert b"".join(decoder.decode(gzip.compress(b"one") + gzip.compress(b"two"))) == b"onetwo"
    assert decoder.ended


def test_a_bomb_comes_out_piece_by_piece() -> None:
    decoder = decoder_for("gzip")
    assert decoder is not None
    sizes = [len(piece) for piece in decoder.decode(gzip.compress(bytes(20 * PIECE_BYTES)))]
    assert sum(sizes) == 20 * PIECE_BYTES
    assert max(sizes) <= PIECE_BYTES


def test_what_is_cut_off_has_not_ended() -> None:
    decoder = decoder_for("gzip")
    assert decoder is not None
    list(decoder.decode(gzip.compress(TEXT)[:-9]))
    assert not decoder.ended


def test_what_is_not_compressed_is_refused() -> None:
    decoder = decoder_for("gzip")
    assert decoder is not None
    with pytest.raises(InputError, match="its compression is broken"):
        list(decoder.decode(b"plain text"))


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_plain_body_needs_no_decoder(encoding: str) -> None:
    assert decoder_for(encoding) is None


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "chunked"])
def test_an_unknown_encoding_is_refused_by_name(encoding: str) -> None:
    with pytest.raises(InputError, match=f"Content-Encoding '{encoding}'"):
        decoder_for(encoding)
