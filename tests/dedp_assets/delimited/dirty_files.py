"""Files of all kinds of dirt below the header `type;full_name;version`, and what each of their lines is."""

from collections.abc import Callable, Iterable

from hypothesis import strategies as st

_values = st.one_of(
    st.sampled_from(
        [
            "a",
            "b",
            "phone",
            "é😀",
            " x",
            "x ",
            ";",
            '"',
            'a"b',
            "",
            " ",
            "\t",
            "\\.",
            "\\N",
            "NULL",
            "\x0b",
            "\ufeff",
            "\u017f",
        ]
    ),
    st.text(max_size=6),
    st.builds(
        lambda character, length: character * length,
        st.sampled_from("x漢😀"),
        st.sampled_from([15, 16, 40, 41, 50, 51]),
    ),
)
_plain_lines = st.builds(lambda *values: ";".join(values).encode(), *[st.sampled_from(["a", "b", "c d", "é😀"])] * 3)
_headers = st.permutations(["type", "full_name", "version"]).flatmap(
    lambda names: st.tuples(
        *[st.sampled_from([name, name.upper(), f" {name}", f"{name}\t", "a", "tyPe"]) for name in names]
    )
)


def written(values: Iterable[str], quoted: Callable[[str], bool] = lambda value: bool(set(value) & set(';"'))) -> str:
    """The values as a CSV writer writes them."""
    return ";".join('"' + value.replace('"', '""') + '"' if quoted(value) else value for value in values)


_written_lines = st.one_of(
    st.lists(_values, min_size=2, max_size=4).map(written),
    st.builds(lambda values, quote: written(values, lambda value: quote), _headers, st.booleans()),
)
_anything = st.one_of(
    st.text(alphabet='ab;"\r\0é ', max_size=12).map(str.encode),
    st.binary(max_size=12),
    st.sampled_from([b"{........", b"", b'"', b"\xff", b"\xef\xbb\xbf", b"\r", b"x" * 499, b"x" * 501, b"x;" * 700]),
)
_marked = st.builds(
    lambda marks, line: ("\ufeff" * marks + line).encode("utf-8", "replace"),
    st.sampled_from([0, 0, 1, 2]),
    _written_lines,
)
lines = st.one_of(_plain_lines, _plain_lines, _marked, _anything)


@st.composite
def dirty_files(draw: st.DrawFn) -> bytes:
    """The lines of a file below the header, with any line ends; the last may have none."""
    body = b"".join(
        line + end
        for line, end in draw(st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\n", b"\r\n"])), min_size=1))
    )
    return draw(st.sampled_from([body, body + b"a;b;last"]))


def physical_lines(body: bytes) -> dict[int, bytes]:
    """The lines as they stand in the file, by number, without their ends."""
    pieces = body.split(b"\n")
    if not pieces[-1]:
        pieces.pop()
    return {number: piece.removesuffix(b"\r") for number, piece in enumerate(pieces, start=2)}


def values_of(raw: bytes, delimiter: str = ";", lengths: Iterable[float] = (15, 50, 40)) -> tuple[str, ...] | None:
    """The three values of a line that is a row, read character by character; None of any other."""
    try:
        line = raw.decode()
    except UnicodeDecodeError:
        return None
    while line[:1] == "\ufeff":
        line = line[1:]
    values = [""]
    quoted, closed = False, False
    position = 0
    while position < len(line):
        character = line[position]
        if quoted:
            if line[position : position + 2] == '""':
                values[-1] += '"'
                position += 1
            elif character == '"':
                quoted, closed = False, True
            else:
                values[-1] += character
        elif character == delimiter:
            values.append("")
            closed = False
        elif closed or character in "\r\0" or (character == '"' and values[-1]):
            return None
        elif character == '"':
            quoted = True
        else:
            values[-1] += character
        position += 1
    if quoted or len(values) != 3 or set(line) & set("\r\0\ufeff"):
        return None
    if {value.strip(" \t").lower() for value in values} == {"type", "full_name", "version"}:
        return None
    fits = all(value.strip(" \t") and len(value) <= most for value, most in zip(values, lengths, strict=True))
    return tuple(values) if fits else None
