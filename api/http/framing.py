"""Where HTTP/1.1 messages begin and end in a stream of bytes (RFC 9112), as far as the parser leaves that to
us."""

import re

END_OF_HEAD = b"\r\n\r\n"
END_OF_LINE = b"\n"
ABSOLUTE = re.compile(rb"https?://([^/?]+)([^?]*)\??(.*)", re.IGNORECASE)
# RFC 3986, 3.2.2 and 3.2.3; empty where the target names no host (RFC 9112, 3.2).
HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.]+\]|\[v[0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+\]|([\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(:[0-9]{0,5})?",
    re.ASCII,
)


class Framing:
    """Cuts a stream where a head or a body ends, so that the parser is not given the next message with it.

    Trailer fields are renamed before the parser sees them, because it would obey a Content-Length, a
    Connection or an Upgrade among them (RFC 9110, 6.5.1). It still checks their syntax.
    """

    overhead = 0  # bytes of a chunked body since its last byte of data

    def __init__(self) -> None:
        self.expect_head()

    def expect_head(self) -> None:
        self.last = b""  # the last three bytes of the head so far: its end may be split between two pieces
        self.left = 0  # bytes that are still to come of the body, or of the chunk and the end of its line
        self.is_chunked = False

    def expect_body(self, length: int, is_chunked: bool) -> None:
        self.left, self.is_chunked = length, is_chunked
        self.overhead = 0
        self.line = b""  # that says the size of the next chunk
        self.in_trailer, self.at_line_start = False, True

    @property
    def has_body(self) -> bool:
        return self.is_chunked or self.left > 0

    def next_piece(self, data: bytes, begin: int) -> tuple[bytes, int]:
        """(what the parser reads next, where the rest of `data` begins)."""
        if self.left:
            end = min(begin + self.left, len(data))
            self.left -= end - begin
            return data[begin:end], end
        if not self.is_chunked:
            return self.take_head(data, begin)
        end = data.find(END_OF_LINE, begin) + 1 or len(data)
        piece = data[begin:end]
        self.overhead += len(piece)
        return (self.take_trailer(piece) if self.in_trailer else self.take_chunk_size(piece)), end

    def take_head(self, data: bytes, begin: int) -> tuple[bytes, int]:
        seam = (self.last + data[begin : begin + 3]).find(END_OF_HEAD)
        if seam >= 0:
            end = begin + seam + len(END_OF_HEAD) - len(self.last)
        else:
            found = data.find(END_OF_HEAD, begin)
            end = found + len(END_OF_HEAD) if found >= 0 else len(data)
        piece = data[begin:end]
        self.last = (self.last + piece[-3:])[-3:]
        return piece, end

    def take_chunk_size(self, piece: bytes) -> bytes:
        self.line += piece
        if self.line.endswith(END_OF_LINE):
            size = parse_chunk_size(self.line)
            self.line = b""
            if size == 0:
                self.in_trailer = True
            elif size:
                self.left, self.overhead = size + len(b"\r\n"), 0
        return piece

    def take_trailer(self, piece: bytes) -> bytes:
        begins_field = self.at_line_start and not piece.startswith((b"\r", b":"))
        self.at_line_start = piece.endswith(END_OF_LINE)
        return b"x-" + piece if begins_field else piece


def parse_chunk_size(line: bytes) -> int | None:
    """None for a malformed line, which the parser will refuse."""
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        return None


def split_target(target: bytes) -> tuple[bytes | None, bytes, bytes]:
    """(authority, path, query) of a request's target, without decoding (RFC 9112, 3.2). A target without a
    path, such as `*`, is returned as a path, which no operation has."""
    absolute = ABSOLUTE.fullmatch(target)
    if absolute:
        authority, path, query = absolute.groups()
        return authority, path or b"/", query
    path, _, query = target.partition(b"?")
    return None, path, query


def is_host(value: bytes) -> bool:
    return HOST.fullmatch(value) is not None
