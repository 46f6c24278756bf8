"""CRC-32C and CRC-64/NVME, which Python lacks, and the names of S3's checksums."""

from __future__ import annotations

import base64
import functools
import hashlib
import zlib

# Reflected polynomials: (polynomial, bytes).
_CRC32C = (0x82F63B78, 4)
_CRC64NVME = (0x9A6C9329AC4BC9B5, 8)
# Lanes of fewer bytes are not worth the combination.
_LANE = 2048


def checksum(algorithm: str, data: bytes) -> bytes:
    """
    Return a checksum by S3's name of the algorithm, such as "CRC32", in big endian.

    Raises:
        KeyError: The algorithm is not supported here.
    """
    if algorithm == "CRC32":
        return zlib.crc32(data).to_bytes(4, "big")
    if algorithm == "CRC32C":
        return crc(data, *_CRC32C).to_bytes(4, "big")
    if algorithm == "CRC64NVME":
        return crc(data, *_CRC64NVME).to_bytes(8, "big")
    names = {"SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512", "MD5": "md5"}
    return hashlib.new(names[algorithm], data).digest()


def encoded(algorithm: str, data: bytes) -> str:
    """Return a checksum as the stores write it, in base64."""
    return base64.b64encode(checksum(algorithm, data)).decode()


def crc32c(data: bytes) -> bytes:
    """Return the CRC-32C of some bytes, in big endian."""
    return checksum("CRC32C", data)


def crc(data: bytes, polynomial: int, width: int) -> int:
    """
    Return a reflected CRC with all bits set before and inverted after.

    The data is divided into lanes, whose registers advance together, one byte of each
    lane a step: plane *k* holds byte *k* of all registers. A step is a few operations
    on long integers and one `bytes.translate` a plane: 64 MiB take about 3 s.
    """
    ones = (1 << 8 * width) - 1
    lanes = min(4096, len(data) // _LANE)
    if lanes < 2:
        return ones ^ _serial(ones, data, polynomial, width)
    length = len(data) // lanes
    planes = [0] * width
    tables = _planes(polynomial, width)
    for step in range(length):
        column = data[step : length * lanes : length]
        index = (planes[0] ^ int.from_bytes(column, "little")).to_bytes(lanes, "little")
        rest = [*planes[1:], 0]
        planes = [
            above ^ int.from_bytes(index.translate(table), "little")
            for above, table in zip(rest, tables)
        ]
    rows = [plane.to_bytes(lanes, "little") for plane in planes]
    shift = _shift(length, polynomial, width)
    register = ones
    for lane in range(lanes):
        register = _apply(shift, register) ^ int.from_bytes(
            bytes(row[lane] for row in rows), "little"
        )
    return ones ^ _serial(register, data[length * lanes :], polynomial, width)


def _serial(register: int, data: bytes, polynomial: int, width: int) -> int:
    table = _table(polynomial, width)
    for byte in data:
        register = table[(register ^ byte) & 255] ^ (register >> 8)
    return register


@functools.cache
def _table(polynomial: int, width: int) -> tuple[int, ...]:
    found = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        found.append(value)
    return tuple(found)


@functools.cache
def _planes(polynomial: int, width: int) -> tuple[bytes, ...]:
    table = _table(polynomial, width)
    return tuple(bytes(one >> 8 * k & 255 for one in table) for k in range(width))


def _shift(length: int, polynomial: int, width: int) -> tuple[int, ...]:
    """Return what *length* zero bytes do to each single bit of the register."""
    table = _table(polynomial, width)
    power = tuple(
        table[bit & 255] ^ (bit >> 8) for bit in (1 << k for k in range(8 * width))
    )
    result = tuple(1 << k for k in range(8 * width))
    while length:
        if length & 1:
            result = tuple(_apply(power, one) for one in result)
        power = tuple(_apply(power, one) for one in power)
        length >>= 1
    return result


def _apply(matrix: tuple[int, ...], value: int) -> int:
    result = 0
    for row in matrix:
        if not value:
            break
        if value & 1:
            result ^= row
        value >>= 1
    return result
