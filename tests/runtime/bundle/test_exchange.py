"""What dead processes left is put in order if it is an exchange, and otherwise left alone with an error."""

from __future__ import annotations

import json
import os
import threading

import pytest

from kcompiler.runtime.bundle.exchange import Exchange, recover
from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.errors import UsageError

NAMES = ["map.npy", "map.json"]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs locks")


@pytest.fixture
def left(tmp_path):
    """What a process leaves that died after it moved the old record: folder and temporary folder."""
    folder, root = tmp_path / "maps", tmp_path / "maps" / f".writing-{os.getuid()}" / "abcd1234"
    for path in (root / "new", root / "old"):
        path.mkdir(parents=True)
    (root / "lock").touch()
    for name in NAMES:
        (root / "new" / name).write_text("new")
    (root / "old" / "map.json").write_text("old")
    (folder / "map.npy").write_text("old")
    moves(root, NAMES)
    return folder, root


def moves(root, new, obsolete=()):
    (root / "moves.json").write_text(json.dumps({"new": new, "replaced": new, "obsolete": obsolete}))


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_the_moves_that_are_left_are_made(left):
    folder, _ = left
    recover(folder)
    assert content(folder) == dict.fromkeys(NAMES, "new")
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)


def test_a_record_that_somebody_wrote_since_stays(left):
    folder, _ = left
    (folder / "map.json").write_text("of somebody")
    recover(folder)
    assert content(folder) == {"map.npy": "old", "map.json": "of somebody"}


@pytest.mark.parametrize("names", [["../map.json"], ["/etc/passwd", "map.json"], [".."]])
@pytest.mark.parametrize("where", ["new", "obsolete"])
def test_names_beyond_the_folder_are_refused(left, names, where):
    folder, root = left
    (folder.parent / "map.json").write_text("of somebody")
    moves(root, NAMES if where == "obsolete" else names, names if where == "obsolete" else ())
    with pytest.raises(UsageError, match=r"abcd1234: left by a process that died, cannot be put in order \(.*is no file name"):
        recover(folder)
    assert (folder.parent / "map.json").read_text() == "of somebody"
    assert root.is_dir()


def test_links_are_refused(left):
    folder, root = left
    (folder.parent / "private").mkdir()
    (folder.parent / "private" / "map.json").write_text("private")
    (root / "new" / "map.json").unlink()
    (root / "new" / "map.npy").unlink()
    (root / "new").rmdir()
    (root / "new").symlink_to(folder.parent / "private")
    with pytest.raises(UsageError, match="has links for folders"):
        recover(folder)
    assert (folder.parent / "private" / "map.json").read_text() == "private"


def test_folders_without_a_lock_are_nobodys_to_remove(left):
    folder, root = left
    (root / "lock").unlink()
    recover(folder)
    assert root.is_dir()
    assert content(folder) == {"map.npy": "old"}


def test_an_exchange_that_goes_on_is_left_alone(tmp_path):
    with Exchange(tmp_path) as exchange:
        exchange.write("a", b"new")
        recover(tmp_path)
        exchange.make()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_many_threads_write_into_a_folder(tmp_path):
    """None removes what others use, and nothing is left."""

    def write(number: int) -> None:
        for turn in range(20):
            replace_files(tmp_path, {f"{number}.npy": b"%d" % turn, f"{number}.json": b"%d" % turn}, force=True)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(tmp_path) == {f"{number}.{kind}": "19" for number in range(8) for kind in ("npy", "json")}
    assert len(list(tmp_path.iterdir())) == 16
