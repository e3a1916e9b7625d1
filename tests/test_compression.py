"""Compressed streams: told by their bytes, and every kind of damage is told too."""

from __future__ import annotations

import gzip
import io
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from backports import zstd

from fastsft.storage import compression
from fastsft.storage.compression import GzipCompressor, compression_of, corruption_errors, open_compressed, zstd_frame

DATA = b"".join(b"line %d\n" % (number * 7919) for number in range(5000))
PACKED = {"gz": gzip.compress(DATA), "zst": zstd.compress(DATA)}


@pytest.fixture(params=["isal", "no isal"])
def _reader(request, monkeypatch):
    """Read gzip with isal, and with Python's own where isal is not installed."""
    if request.param == "no isal":
        monkeypatch.setitem(sys.modules, "isal.igzip", None)


def read(path, kind: str) -> bytes:
    with open_compressed(str(path), kind) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


@pytest.mark.usefixtures("_reader")
@pytest.mark.parametrize("kind", PACKED)
def test_what_is_compressed_is_read_back_streams_end_to_end_too(tmp_path, kind):
    for packed, data in ((PACKED[kind], DATA), (PACKED[kind] * 2, DATA * 2)):
        (tmp_path / "in").write_bytes(packed)
        assert compression_of(packed[:4]) == kind
        assert read(tmp_path / "in", kind) == data


@pytest.mark.parametrize("size", [0, 1, 1000, 2000, len(DATA)])
def test_gzip_depends_on_the_data_alone(monkeypatch, size):
    monkeypatch.setattr(compression, "_BLOCK_NBYTES", 1000)

    def packed(threads: int, step: int) -> bytes:
        with ThreadPoolExecutor(threads) as pool:
            packer = GzipCompressor(pool, ahead=threads)
            parts = [packer.compress(DATA[start : min(start + step, size)]) for start in range(0, size, step)]
            return b"".join(parts) + packer.flush()

    expected = packed(1, 1_000_000)
    assert [packed(1, 999), packed(3, 700), packed(2, 2500)] == [expected] * 3
    assert gzip.decompress(expected) == DATA[:size]


@pytest.mark.parametrize("size", [0, 1, 1000, len(DATA)])
def test_zstandard_is_one_frame_that_says_its_length_whoever_packs_it(monkeypatch, size):
    """Of several frames, python-zstandard's `decompress()` gives the first without an error."""
    monkeypatch.setattr(compression, "_BLOCK_NBYTES", 1000)

    def packed(workers: int) -> bytes:
        return b"".join(zstd_frame(io.BytesIO(DATA[:size]), size, workers=workers))

    expected = packed(1)
    assert [packed(2), packed(4)] == [expected] * 2
    info = zstd.get_frame_info(expected)
    assert info.decompressed_size == size
    assert zstd.get_frame_size(expected) == len(expected)
    assert zstd.decompress(expected) == DATA[:size]
    with pytest.raises(zstd.ZstdError):
        zstd.decompress(expected[:-1] + bytes([expected[-1] ^ 1]))  # it has a checksum


def test_zstandard_may_begin_with_a_frame_to_be_skipped(tmp_path):
    for first in (0x50, 0x5F):
        skipped = bytes([first]) + b"\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
        (tmp_path / "in").write_bytes(skipped + PACKED["zst"])
        assert compression_of(skipped[:4]) == "zst"
        assert read(tmp_path / "in", "zst") == DATA
    assert compression_of(b"\x60\x2a\x4d\x18") is None


@pytest.mark.usefixtures("_reader")
@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize(
    "fault", ["ends early", "garbage inside", "flipped at the end", "header alone", "trailing garbage"]
)
def test_every_damage_is_told(tmp_path, kind, fault):
    packed = PACKED[kind]
    damaged = {
        "ends early": packed[: len(packed) // 2],
        "garbage inside": packed[:12] + b"\xff" * 300,
        "flipped at the end": packed[:-12] + bytes(byte ^ 0x55 for byte in packed[-12:]),
        "header alone": packed[:10],
        "trailing garbage": packed + b"garbage",
    }
    (tmp_path / "in").write_bytes(damaged[fault])
    with pytest.raises(corruption_errors(kind)):
        read(tmp_path / "in", kind)
