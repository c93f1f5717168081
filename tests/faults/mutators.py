"""What can happen to the bytes of a file, and what can lie in its place: each by a seeded generator."""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Callable
from pathlib import Path

Mutator = Callable[[bytes, random.Random], bytes]
Placer = Callable[[Path], None]
ODD = (
    b"\0", b"\xff", b"\xed\xa0\x80", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"\t", b" ", b'"', b"'", b"{", b"[", b"}",
    b"]", b":", b",", b"#", b"&a ", b"*a", b"!!int ", b"!!python/name:os.system ", b"<<: ", b"-", b"nan", b"-inf",
    b"1e999", b"null", b"\\ud800", b"\\u0000", b"%s", b"\xe2\x80\xae", b"true",
)  # fmt: skip
NUMBERS = (b"0", b"-1", b"1e400", b"NaN", b"9" * 25, b"9" * 5000, b"-0.0", b"1_0", b"0x10", b"4294967296", b"1e-400")
HUGE = 1 << 40  # bytes of a file of nothing


def _place(data: bytes, rng: random.Random) -> int:
    """Somewhere, more often at the beginning or the end, where formats say what they are."""
    return min(int(len(data) * rng.random() ** rng.choice((1.0, 1.0, 4.0, 0.2))), max(0, len(data) - 1))


def _part(data: bytes, rng: random.Random) -> tuple[int, int]:
    first = _place(data, rng)
    return first, min(len(data), first + rng.choice((1, 2, 8, 64, 512, len(data) // 3)))


def flipped_bit(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :] if data else data


def other_byte(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + rng.randbytes(1) + data[place + 1 :]


def odd_text(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + rng.choice(ODD) + data[place + rng.randrange(2) :]


def other_number(data: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb"-?\d[\d.e+-]*", data))
    if not found:
        return odd_text(data, rng)
    chosen = rng.choice(found)
    return data[: chosen.start()] + rng.choice(NUMBERS) + data[chosen.end() :]


def taken_out(data: bytes, rng: random.Random) -> bytes:
    first, end = _part(data, rng)
    return data[:first] + data[end:]


def put_twice(data: bytes, rng: random.Random) -> bytes:
    first, end = _part(data, rng)
    return data[:end] + data[first:]


def moved(data: bytes, rng: random.Random) -> bytes:
    first, end = _part(data, rng)
    rest, place = data[:first] + data[end:], _place(data, rng)
    return rest[:place] + data[first:end] + rest[place:]


def cut_off(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def zeroed(data: bytes, rng: random.Random) -> bytes:
    first, end = _part(data, rng)
    return data[:first] + bytes(end - first) + data[end:]


def noise(data: bytes, rng: random.Random) -> bytes:
    first, end = _part(data, rng)
    return data[:first] + rng.randbytes(end - first) + data[end:]


def more_behind(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0", b"\n", data, rng.randbytes(100), b"x" * 5000))


def line_twice(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    chosen = rng.randrange(len(lines)) if lines else 0
    return b"".join(lines[: chosen + 1] + lines[chosen:])


def other_encoding(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("latin-1")
    return rng.choice((
        text.encode("utf-16"), text.encode("utf-32"), b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"),
        data.replace(b"\n", b"\r"), data + b"\xff",
    ))  # fmt: skip


def nested(data: bytes, rng: random.Random) -> bytes:
    depth, place = rng.choice((10, 200, 5000, 100_000)), _place(data, rng)
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"- ", b""), (b"(", b")"), (b"{a: ", b"}")))
    return data[:place] + opening * depth + b"1" + closing * depth + data[place:]


MUTATORS: tuple[Mutator, ...] = (
    flipped_bit, other_byte, odd_text, other_number, taken_out, put_twice, moved, cut_off, zeroed, noise, more_behind,
    line_twice, other_encoding, nested,
)  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """What one to four mutators make of it, and their names."""
    chosen = [rng.choice(MUTATORS) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    for mutate in chosen:
        data = mutate(data, rng)
    return data, "+".join(mutate.__name__ for mutate in chosen)


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the whole name may be too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def an_empty_file(path: Path) -> None:
    path.touch()


def nothing(path: Path) -> None:
    del path


def a_huge_file(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(HUGE)


PLACERS: tuple[Placer, ...] = (
    a_fifo, a_socket, a_device, a_folder, a_loop, a_link_to_nothing, an_empty_file, nothing, a_huge_file,
)  # fmt: skip
