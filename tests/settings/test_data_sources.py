"""The addresses in [push] data."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebox.errors import ConfigError
from onebox.settings import load
from onebox.settings.checks import InvalidValue
from onebox.settings.data_sources import DataSource
from onebox.settings.job_tables import PushTable


@pytest.mark.parametrize(
    ("text", "address", "target", "folder"),
    [
        ("s3://bucket/a/b/", "s3://bucket/a/b/", "b", True),
        ("s3://bucket/a/b/ -> data/raw/", "s3://bucket/a/b/", "data/raw", True),
        ("s3://bucket", "s3://bucket/", "bucket", True),
        ("s3://bucket/ -> data", "s3://bucket/", "data", True),
        ("gs://my_bucket.org/m.bin", "gs://my_bucket.org/m.bin", "m.bin", False),
        ("gs://bucket/m.bin -> models/", "gs://bucket/m.bin", "models/m.bin", False),
        ("gs://bucket/m.bin -> models/x", "gs://bucket/m.bin", "models/x", False),
        ("S3://bucket/a -> b -> c", "s3://bucket/a -> b", "c", False),
        (
            "https://host/a/f%20x.bin?k=1",
            "https://host/a/f%20x.bin?k=1",
            "f x.bin",
            False,
        ),
        ("http://127.0.0.1:80/f", "http://127.0.0.1:80/f", "f", False),
        ("https://[2001:db8::1]:443/f", "https://[2001:db8::1]:443/f", "f", False),
    ],
)
def test_an_address_names_a_place(
    text: str, address: str, target: str, folder: bool
) -> None:
    """Without a place, it is the last part of the address."""
    source = DataSource.parse(text)

    assert (address, target, folder) == (
        source.address,
        source.target,
        source.is_folder,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ftp://host/f", "s3://, gs://, https://"),
        ("s4://bucket/f", "s3"),
        ("http://example.com/f", "use https"),
        ("http://127.0.0.1.evil.example/f", "use https"),
        ("s3://-/f", "is no bucket"),
        ("s3:///f", "is no bucket"),
        ("https://user@host/f", "is no host"),
        ("https://host/", "is a folder"),
        ("https://host", "is a folder"),
        ("https://host/a b", "write other characters"),
        ("https://host/f#part", "write other characters"),
        ("s3://bucket/a/../", "name a folder or file"),
        ("s3://bucket/ -> ../x", "leaves the project"),
        ("s3://bucket/ -> /x", "not relative"),
        ("s3://bucket/ -> .", "name a folder or file"),
        ("s3://bucket/ -> ", "names no path"),
        ("s3://bucket/x/->data/", "with spaces"),
        ("s3://bucket/x/*.csv", "is a pattern"),
    ],
)
def test_an_address_that_no_box_can_use_is_refused(text: str, words: str) -> None:
    """The reason is in the message."""
    with pytest.raises(InvalidValue, match=words.replace(".", r"\.")):
        DataSource.parse(text)


def test_a_query_is_not_shown() -> None:
    """It may hold a key."""
    source = DataSource.parse("https://host/f?sig=secret")

    assert ("https://host/f", "f") == (source.shown, source.target)


def load_data(tmp_path: Path, data: str) -> PushTable:
    """Return [push] of an onebox.toml with this data."""
    (tmp_path / "onebox.toml").write_text(f"[push]\ndata = {data}\n")
    return load(tmp_path, {"HOME": str(tmp_path)}, {}).push


def test_paths_and_addresses_are_told_apart(tmp_path: Path) -> None:
    """Each kind is used where it belongs."""
    push = load_data(tmp_path, '["data/", "s3://bucket/x/"]')

    assert (("data/",), ["x"]) == (
        push.local_data,
        [source.target for source in push.sources],
    )


@pytest.mark.parametrize(
    "data",
    [
        '["s3://bucket/x/", "gs://bucket/x/"]',
        '["s3://bucket/x/ -> data/", "s3://bucket/f -> data/sub/"]',
        '["s3://bucket/x/ -> data/a/b", "s3://bucket/y/ -> data"]',
    ],
)
def test_two_addresses_for_one_place_are_refused(tmp_path: Path, data: str) -> None:
    """Their files would replace each other."""
    with pytest.raises(ConfigError, match="would both be in"):
        load_data(tmp_path, data)


def test_places_with_a_common_beginning_are_different(tmp_path: Path) -> None:
    """Only whole parts of a path count."""
    assert 2 == len(
        load_data(tmp_path, '["s3://bucket/x/", "s3://bucket/xy/"]').sources
    )


def test_a_wrong_address_is_an_error_with_file_and_key(tmp_path: Path) -> None:
    """It is found before the first call of an API."""
    with pytest.raises(ConfigError, match=r"onebox.toml:2: \[push\] data"):
        load_data(tmp_path, '["s3://-/x"]')


@pytest.mark.parametrize("text", ["s3:/bucket/x/", "s3:bucket/x/", "https:/bucket/x/"])
def test_an_address_with_a_slash_too_few_is_no_path(tmp_path: Path, text: str) -> None:
    """The message has the address that was meant."""
    meant = f"{text.partition(':')[0]}://bucket/x/"
    with pytest.raises(ConfigError, match=f"did you mean .*{meant}"):
        load_data(tmp_path, f'["{text}"]')
