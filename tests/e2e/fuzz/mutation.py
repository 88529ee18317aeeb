"""Valid messages, damaged as an enemy or a bad cable would."""

from __future__ import annotations

from hypothesis import strategies as st

# On the wire: lengths beyond the end, the largest varint, groups that nobody closes, a tag of field 0.
_NASTY = (
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x0b\x0b\x0b\x0b",
    b"\x00\x00",
    b"\xfa\x7f\x80\x80\x80\x80\x10",
    b"\xc0\x80",
)


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """The content after one to six changes: bits flipped, parts cut out, repeated, moved, or foreign ones put in."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(damaged)))
        end = min(len(damaged), start + draw(st.integers(1, 24)))
        match draw(
            st.sampled_from(("flip", "cut", "repeat", "insert", "nasty", "move", "truncate"))
        ):
            case "flip" if start < len(damaged):
                damaged[start] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del damaged[start:end]
            case "repeat":
                damaged[start:start] = bytes(damaged[start:end]) * draw(st.integers(1, 50))
            case "insert":
                damaged[start:start] = draw(st.binary(min_size=1, max_size=16))
            case "nasty":
                damaged[start:start] = draw(st.sampled_from(_NASTY))
            case "move":
                part = bytes(damaged[start:end])
                del damaged[start:end]
                where = draw(st.integers(0, len(damaged)))
                damaged[where:where] = part
            case "truncate" if len(damaged) > 1:
                del damaged[draw(st.integers(1, len(damaged) - 1)) :]
    return bytes(damaged)
