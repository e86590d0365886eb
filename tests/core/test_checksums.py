"""SHA-256 of bytes and files: the example of FIPS 180-2."""

from pathlib import Path

from genprior.core.checksums import file_digest, sha256

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_published_example(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(b"abc") == file_digest(tmp_path / "abc") == ABC


def test_a_large_file_is_read_whole(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    (tmp_path / "large").write_bytes(data)
    assert file_digest(tmp_path / "large") == sha256(data) != sha256(data[:-1])
