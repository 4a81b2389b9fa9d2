"""Notebooks in archives and compressed files, within each other too: in memory, within a bound.

The content of a file decides what it is, not its name. Whatever Python's standard library can open
is opened: zip, tar, gzip, bzip2, xz. Nothing is written, so no path in an archive leads anywhere,
and no link in it is followed.
"""

import bz2
import functools
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

MOST_DEPTH = 4  # archives within each other, a tar.gz counted twice
MOST_MEMBERS = 20_000  # of a tar, whose list has to be read file by file
MOST_UNPACKED_BYTES = 512 << 20  # of all archives of a submission, apart from notebooks in a zip
LONGEST_MAGIC = 262  # bytes at the beginning of a file that tell its kind

LINK = "a link; hand in the file itself"
MAGIC = {  # by kind: where it stands in a file, and the bytes
    "zip": (0, (b"PK\3\4", b"PK\5\6")),
    "tar": (257, (b"ustar",)),
    "gzip": (0, (b"\x1f\x8b",)),
    "bzip2": (0, (b"BZh",)),
    "xz": (0, (b"\xfd7zXZ\0",)),
}
COMPRESSED = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}  # one file each
PACKED_NAMES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")
NOT_OPENED_NAMES = (".7z", ".rar", ".zst", ".lz4", ".z", ".lz", ".iso", ".dmg", ".cab")


class NotOpened(Exception):
    """An archive, or a file in one, that cannot be read; the text says why."""


Read = Callable[[], bytes]  # raises NotOpened


def is_packed(beginning: bytes) -> bool:
    """Whether a file that begins so may be an archive or a compressed file."""
    return _kind(beginning) is not None


def _kind(content: bytes) -> str | None:
    """Return the kind of an archive or compressed file; None if it is neither."""
    return next(
        (kind for kind, (at, magics) in MAGIC.items() if content.startswith(magics, at)), None
    )


class Unpacker:
    """Opens the archives of one submission.

    Args:
        wanted: whether a file is looked for, by its path in the archive.
        complain: called with a file's name and a sentence for what cannot be opened.
        most: of the bytes of one file.
    """

    def __init__(
        self, wanted: Callable[[str], bool], complain: Callable[[str, str], None], most: int
    ) -> None:
        self.wanted, self.complain, self.most = wanted, complain, most
        self.room = MOST_UNPACKED_BYTES

    def members(self, name: str, content: bytes, depth: int = 1) -> Iterator[tuple[str, Read]]:
        """Yield the wanted files of an archive, and of those in it: their paths and what reads
        them."""
        try:
            if depth > MOST_DEPTH:
                raise NotOpened(f"archives more than {MOST_DEPTH} deep are not opened")
            match _kind(content[:LONGEST_MAGIC]):
                case None if not zipfile.is_zipfile(io.BytesIO(content)):
                    raise NotOpened("not a readable archive")
                case "zip" | None:  # with something before it, such as what unpacks it
                    yield from self._wanted_in(name, self._of_zip(content), depth)
                case "tar":
                    yield from self._wanted_in(name, self._of_tar(content), depth)
                case compressed:
                    inside = self._decompress(content, COMPRESSED[compressed])
                    if is_packed(inside[:LONGEST_MAGIC]):  # a tar.gz, say
                        yield from self.members(name, inside, depth + 1)
                    else:
                        yield from self._wanted_in(name, self._only_file(name, inside), depth)
        except NotOpened as error:
            self.complain(name, str(error))
        except MemoryError:
            raise
        except Exception as error:  # a damaged archive fails in as many ways as there are formats
            self.complain(name, f"not a readable archive ({_said(error)})")

    def _wanted_in(
        self, name: str, files: Iterator[tuple[str, Read]], depth: int
    ) -> Iterator[tuple[str, Read]]:
        """Yield the wanted files among those of an archive, and look into the archives."""
        for inner, read in files:
            path = f"{name}/{inner}"
            if self.wanted(inner):
                yield path, read
            elif inner.lower().endswith(PACKED_NAMES):
                try:
                    packed = read()
                except NotOpened as error:
                    self.complain(path, str(error))
                else:
                    yield from self.members(path, packed, depth + 1)

    def _decompress(self, content: bytes, opened: Callable) -> bytes:
        with opened(io.BytesIO(content)) as file:
            return self._take(file)

    def _only_file(self, name: str, content: bytes) -> Iterator[tuple[str, Read]]:
        """Yield what a compressed file holds, under its name without the ending: a.ipynb.gz."""
        bare = PurePosixPath(name).name
        yield bare if self.wanted(bare) else bare.rpartition(".")[0], lambda: content

    def _of_zip(self, content: bytes) -> Iterator[tuple[str, Read]]:
        archive = zipfile.ZipFile(io.BytesIO(content))
        for member in archive.infolist():
            if not member.is_dir():
                yield member.filename, functools.partial(self._read_zipped, archive, member)

    def _read_zipped(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
        """Read a file of an archive, regardless of the size that it declares."""
        if member.flag_bits & 1:
            raise NotOpened("it is encrypted; hand it in without a password")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise NotOpened(LINK)
        packed = member.filename.lower().endswith(PACKED_NAMES)
        try:
            with archive.open(member) as file:
                return self._take(file) if packed else self._bounded(file)
        except (NotOpened, MemoryError):
            raise
        except Exception as error:
            raise NotOpened(f"not a readable file in an archive ({_said(error)})") from error

    def _of_tar(self, content: bytes) -> Iterator[tuple[str, Read]]:
        archive = tarfile.TarFile(fileobj=io.BytesIO(content))
        for number, member in enumerate(archive):
            if number == MOST_MEMBERS:
                raise NotOpened(f"more than {MOST_MEMBERS:,} files; the rest is not looked at")
            if not member.isdir():
                yield member.name, functools.partial(self._read_tarred, archive, member)

    def _read_tarred(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        if not member.isreg():
            raise NotOpened(LINK if member.issym() or member.islnk() else "no file")
        try:
            return self._take(archive.extractfile(member))
        except (NotOpened, MemoryError):
            raise
        except Exception as error:
            raise NotOpened(f"not a readable file in an archive ({_said(error)})") from error

    def _take(self, file: io.BufferedIOBase) -> bytes:
        """Read a file, and count it towards what a submission may unpack."""
        if self.most > self.room:
            content = file.read(self.room + 1)
            if len(content) > self.room:
                self.room = 0
                raise NotOpened(f"more than {MOST_UNPACKED_BYTES >> 20} MB in archives; not read")
        else:
            content = self._bounded(file)
        self.room -= len(content)
        return content

    def _bounded(self, file: io.BufferedIOBase) -> bytes:
        content = file.read(self.most + 1)
        if len(content) > self.most:
            raise NotOpened(f"unpacked it has more than {self.most >> 20} MB, and is not read")
        return content


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
