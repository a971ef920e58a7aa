"""The archive that goes to a host: equal content is equal bytes, and tar finds in it what was put in."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from components.archive import File, digest_lines, pack

FILES = {
    "run": File("echo hello\n", mode=0o700),
    "root/etc/kubernetes/secret.key": File("secret", mode=0o600, owner=65532),
    "a file of its own/naïve.txt": File("ümläut\n"),
    "empty": File(""),
}


@pytest.mark.parametrize("compress", [True, False])
def test_equal_content_is_equal_bytes(compress: bool) -> None:
    other_order = dict(reversed(FILES.items()))
    assert pack(FILES, compress=compress) == pack(other_order, compress=compress)


def test_an_archive_has_neither_time_nor_name_of_its_maker() -> None:
    packed = pack(FILES)
    assert packed[4:8] == bytes(4)  # gzip's own time
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for entry in tar.getmembers():
            assert (entry.mtime, entry.uname, entry.gname) == (0, "", "")


@pytest.mark.parametrize("compress", [True, False])
def test_tar_unpacks_what_was_packed(tmp_path: Path, compress: bool) -> None:
    command = ["tar", "--extract", "--same-permissions", "--no-same-owner", *(["--gzip"] if compress else [])]
    subprocess.run(command, cwd=tmp_path, input=pack(FILES, compress=compress), check=True, timeout=10)
    for path, file in FILES.items():
        assert (tmp_path / path).read_text() == file.text
        assert (tmp_path / path).stat().st_mode & 0o777 == file.mode


def test_owner_and_group_are_numbers() -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(FILES))) as tar:
        assert {entry.name: (entry.uid, entry.gid) for entry in tar.getmembers()} == {
            path: (file.owner, file.owner) for path, file in FILES.items()
        }


def test_no_path_leads_out_of_the_directory() -> None:
    with tarfile.open(fileobj=io.BytesIO(pack({"/etc/passwd": File("")}))) as tar:
        assert tar.getnames() == ["etc/passwd"]


def test_a_digest_tells_every_change_and_no_content() -> None:
    lines = digest_lines(FILES).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["#"] * len(FILES)
    assert "secret\n" not in digest_lines(FILES)
    secret = "root/etc/kubernetes/secret.key"
    for changed in (
        File("another", mode=0o600, owner=65532),
        File("secret", owner=65532),
        File("secret", mode=0o600),
    ):
        after = digest_lines(FILES | {secret: changed}).splitlines()
        assert [line for line in after if line not in lines] == [line for line in after if secret in line]
        assert sum(one != other for one, other in zip(lines, after, strict=True)) == 1
