"""What a block of work leaves in a folder."""

import os
from pathlib import Path

from samonai.core.errors import InputError
from samonai.core.files import written_meanwhile


def test_new_and_rewritten_files_are_named_and_others_are_not(tmp_path: Path) -> None:
    for name in ("old", "rewritten"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    with written_meanwhile(tmp_path) as written:
        for name in ("rewritten", "new", ".hidden"):
            (tmp_path / name).write_text(name)
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / "deeper").touch()
    assert written == [tmp_path / "new", tmp_path / "rewritten"]


def test_the_folder_may_come_with_the_block(tmp_path: Path) -> None:
    with written_meanwhile(tmp_path / "out") as written:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "file").touch()
    assert written == [tmp_path / "out" / "file"]


def test_a_message_is_one_printable_line() -> None:
    assert str(InputError("a\nb\x1b[31m\u2028c\udc80 is no file")) == "a b?[31m c? is no file"
    assert str(InputError("Größe 3 µm: «x»")) == "Größe 3 µm: «x»"
