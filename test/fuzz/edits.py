"""Changes to valid files. Bytes select the changes, so that a fuzzer can control them."""

import io
import zipfile

NASTY_VALUES = (
    *("", "null", "true", "-1", "0", "1e400", ".nan", ".inf", "-.inf", "1e308", "5e-324"),
    *("99999999999999999999", "0x", "0b", "1:2:3", "2026-13-45", "2026-01-01", "!!binary x"),
    *("!!python/name:os.system", "!!float x", "!!int x", "!!timestamp x", "!!set {a}", "!!omap x"),
    *("&a [*a]", "*a", "<<: 1", "=", "? x", "[", "{", "'", '"\\ud800"', "\x00", "\ud800", "\u2028"),
    *("../../etc/passwd", "/dev/zero", "[" * 2000, "{a: " * 500, "9" * 5000, "a" * 300, "-" * 80),
    *("[1, 2, 3]", "{a: b}", "|\n  x", "[]", "{}", "~", "0o17", "1_000", "map\n", "1e", "--- a"),
    *("absolute.onnx", "mask.png", "manifest.yaml", "..", ".", "float32", "int8", "quaternion"),
)
HEADER_LENGTH = 10
SIZES = (0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


class Bytes:
    """Reads numbers from bytes. After the last byte they are zero."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def number(self, below: int, size: int = 4) -> int:
        return int.from_bytes(self.take(size), "little") % max(1, below)

    @property
    def left(self) -> bool:
        return self.at < len(self.data)


def edited(content: bytes, how: bytes) -> bytes:
    """`content` with up to eight changes: bytes overwritten, inserted, removed or cut off."""
    plan, changed = Bytes(how), bytearray(content)
    for _ in range(8):
        if not plan.left:
            break
        kind, at = plan.number(6, 1), plan.number(len(changed) + 1)
        if kind == 0:
            changed[at : at + 1] = plan.take(1)
        elif kind == 1:
            changed[at:at] = plan.take(plan.number(16, 1))
        elif kind == 2:
            del changed[at : at + plan.number(64, 1)]
        elif kind == 3:
            size = SIZES[plan.number(len(SIZES), 1)].to_bytes(8, "little")
            changed[at : at + 8] = size[: 1 << plan.number(4, 1)]
        elif kind == 4:
            other = plan.number(len(changed) + 1)
            changed[at:at] = changed[other : other + plan.number(64, 1)]
        else:
            del changed[at:]
    return bytes(changed)


def edited_text(text: str, how: bytes) -> str:
    """YAML text with some values replaced by `NASTY_VALUES`, and some lines removed or repeated."""
    plan, lines = Bytes(how), text.splitlines()
    for _ in range(6):
        if not plan.left or not lines:
            break
        at, kind = plan.number(len(lines), 2), plan.number(8, 1)
        value = NASTY_VALUES[plan.number(len(NASTY_VALUES), 1)]
        head, colon, _ = lines[at].partition(":")
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[at])
        elif kind == 2:
            lines[at] = " " * (len(head) - len(head.lstrip())) + value + ": 1"
        else:
            lines[at] = f"{head}: {value}" if colon else f"{head.split('-')[0]}- {value}"
    return "\n".join(lines)


def edited_npz(content: bytes, how: bytes) -> bytes:
    """An npz file with a change in its bytes, in one array, in an array's header or in an array's name."""
    plan = Bytes(how)
    kind = plan.number(4, 1)
    if kind == 0:
        return edited(content, plan.take(1 << 16))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = list(members)[plan.number(len(members), 1)]
    if kind == 1:
        members[name] = edited(members[name], plan.take(1 << 16))
    elif kind == 2:
        array = members[name]
        end = HEADER_LENGTH + int.from_bytes(array[8:HEADER_LENGTH], "little")
        header = edited(array[HEADER_LENGTH:end], plan.take(1 << 16))[: end - HEADER_LENGTH]
        padded = header.ljust(end - HEADER_LENGTH)
        members[name] = array[:HEADER_LENGTH] + padded + array[end:]
    else:
        members["x" + plan.take(8).decode("latin-1") + ".npy"] = members.pop(name)
    buffer = io.BytesIO()
    method = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(buffer, "w", method[plan.number(4, 1)]) as archive:
        for member, array in members.items():
            archive.writestr(member, array)
    return buffer.getvalue()
