"""Saved images of local boxes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from onebox.errors import ProviderError
from onebox.providers.local import directories, images

from .conftest import OpenBox
from .test_fault_injection import an_image_of


class TestSavedBox:
    def test_a_virtual_environment_works_in_each_box_of_the_image(
        self, open_box: OpenBox
    ) -> None:
        """
        Programs of a virtual environment work in every box that is created from the
        image.
        """
        one = open_box()
        code = "print(__import__('sys').prefix)"
        made = one.out(
            "python3 -m venv --without-pip ~/env && "
            f"printf '#!%s\\n%s\\n' ~/env/bin/python \"{code}\" > ~/env/bin/tool && "
            "chmod 755 ~/env/bin/tool && ln -s ~/env/bin/tool ~/link && "
            "echo 'rm -rf' > ~/.bash_history && mkdir ~/.ssh && echo data > ~/work/data"
        )
        assert made == "[0]"
        one.local.stop(one.box)
        image = one.local.save(one.box, an_image_of(one))
        assert image.stored > 0
        one.local.delete(one.box)
        for _ in range(2):
            other = open_box(image=image)
            home = other.layout.home
            assert other.out("~/env/bin/tool && ~/link") == (
                f"{home}/env\n{home}/env[0]"
            )
            assert (
                other.out("ls -A ~/work ~/.ssh ~/.bash_history").count("No such") == 2
            )
            assert other.ssh(f"grep -r {one.box.id} ~/env ~/.profile").returncode == 1
            assert not (home / "work" / "data").exists()
        one.local.delete_image(image)

    def test_a_write_in_a_box_changes_neither_the_image_nor_other_boxes(
        self, open_box: OpenBox
    ) -> None:
        """A write in place changes neither the image nor other boxes of it."""
        one = open_box()
        one.ssh("echo original > ~/file")
        one.local.stop(one.box)
        image = one.local.save(one.box, an_image_of(one))
        first = open_box(image=image)
        first.ssh("printf changed | dd of=$HOME/file conv=notrunc status=none")
        assert open_box(image=image).ssh("cat ~/file").stdout == b"original\n"
        assert (one.layout.home / "file").read_text() == "original\n"
        one.local.delete_image(image)

    def test_the_copied_bytes_are_reported(
        self, open_box: OpenBox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The total is the size of the home without what an image leaves out."""
        one = open_box()
        # The copy of a small file can end before its first report.
        one.ssh("head -c 100000000 /dev/zero > ~/file; cp ~/file ~/work/left-out")
        one.local.stop(one.box)
        monkeypatch.setattr(directories, "_REPORT_SECONDS", 0.0001)
        reported: list[tuple[float, int]] = []
        image = one.local.save(
            one.box, an_image_of(one), lambda *shown: reported.append(shown)
        )
        assert {total for _, total in reported} == {image.stored}
        assert 100_000_000 <= image.stored < 200_000_000
        assert all(done >= 0 for done, _ in reported)
        one.local.delete_image(image)

    def test_a_running_box_cannot_be_saved(self, open_box: OpenBox) -> None:
        """A running box cannot be saved, because its files may be incomplete."""
        one = open_box()
        with pytest.raises(ProviderError, match="must be stopped"):
            one.local.save(one.box, an_image_of(one))


class TestPaths:
    def test_the_old_path_is_replaced_in_text_binaries_and_links(
        self, tmp_path: Path
    ) -> None:
        """
        The old path is replaced in text files, binaries and links, and nowhere else.
        """
        old, new = tmp_path / "boxes" / "old", tmp_path / "boxes" / "new"
        for home in (old / "home", new / "home"):
            home.mkdir(parents=True)
        home = old / "home"
        (home / "text").write_text(f"#!{home}/bin/python\n")
        (home / "binary").write_bytes(b"\0\xff" + os.fsencode(home) + b"\0\1")
        (home / "other").write_text("nothing of it")
        (home / "empty").touch()
        (home / "read-only").write_text(str(home))
        (home / "read-only").chmod(0o444)
        (home / "absolute").symlink_to(home / "text")
        (home / "relative").symlink_to("text")
        os.utime(home / "text", (1, 2))
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(os.path.relpath(home / "socket"))
            paths = images.save(old, home, tmp_path / "image")
        assert sorted(paths.files) == ["binary", "read-only", "text"]
        assert paths.links == ("absolute",)
        images.restore(tmp_path / "image", paths, new, new / "home")
        there = new / "home"
        assert (there / "text").read_text() == f"#!{there}/bin/python\n"
        assert (there / "text").stat().st_mtime == 2
        assert (there / "binary").read_bytes() == (
            b"\0\xff" + os.fsencode(there) + b"\0\1"
        )
        assert (there / "read-only").stat().st_mode & 0o777 == 0o444
        assert (there / "absolute").readlink() == there / "text"
        assert (there / "relative").readlink() == Path("text")
        assert not (there / "socket").exists()
        assert (home / "text").read_text() == f"#!{home}/bin/python\n"

    def test_a_path_of_another_length_is_refused(self, tmp_path: Path) -> None:
        """Binaries cannot be moved to a path of another length, so that is refused."""
        home = tmp_path / "old" / "home"
        home.mkdir(parents=True)
        (home / "text").write_text(f"#!{home}/bin/python\n")
        paths = images.save(tmp_path / "old", home, tmp_path / "image")
        target = tmp_path / "longer"
        target.mkdir()
        with pytest.raises(ProviderError, match="not as long"):
            images.restore(tmp_path / "image", paths, target, target)

    def test_file_names_of_any_bytes_survive(self, tmp_path: Path) -> None:
        """File names of any bytes survive saving and restoring."""
        home = tmp_path / "old" / "home"
        home.mkdir(parents=True)
        name = os.fsdecode(b"-n \xff\n'")
        (home / name).write_text(str(tmp_path / "old"))
        paths = images.save(tmp_path / "old", home, tmp_path / "image")
        (tmp_path / "new").mkdir()
        images.restore(tmp_path / "image", paths, tmp_path / "new", tmp_path / "new")
        assert (tmp_path / "new" / name).read_text() == str(tmp_path / "new")
