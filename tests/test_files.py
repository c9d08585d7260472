import os
import tracemalloc

import pytest

from nlpmeta.errors import NLPMetaError
from nlpmeta.storage.files import inside, new_file, read_bytes, sha256, write_json, write_text
from nlpmeta.storage.folders import new_folder


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "one")
    write_text(tmp_path / "a.txt", "twö")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "twö"
    assert leftovers(tmp_path) == ["a.txt"]


def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": 1\n}\n'
    assert leftovers(tmp_path) == ["a.json"]


def test_a_stream_that_breaks_off_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), new_file(tmp_path / "a.txt") as stream:
        stream.write("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert leftovers(tmp_path) == ["a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "model") as folder:
        (folder / "part").write_text("x")
        raise RuntimeError
    assert leftovers(tmp_path) == []
    with new_folder(tmp_path / "model") as folder:
        (folder / "part").write_text("x")
    assert leftovers(tmp_path) == ["model"]


def test_an_existing_folder_is_kept_unless_told_otherwise_and_even_then_until_the_new_one_is_whole(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("precious")
    with pytest.raises(NLPMetaError, match="exists and was kept"), new_folder(tmp_path / "model"):
        pass
    with pytest.raises(RuntimeError), new_folder(tmp_path / "model", overwrite=True, also=("old",)):
        raise RuntimeError
    assert (tmp_path / "model" / "old").read_text() == "precious"
    with pytest.raises(NLPMetaError, match="holds old, which is not of a saved model"):
        new_folder(tmp_path / "model", overwrite=True).__enter__()
    with new_folder(tmp_path / "model", overwrite=True, also=("old",)) as folder:
        (folder / "new").write_text("x")
    assert leftovers(tmp_path / "model") == ["new"]
    assert leftovers(tmp_path) == ["model"]


def test_reading_takes_memory_for_the_file_and_not_for_the_most_that_it_may_have(tmp_path):
    (tmp_path / "small").write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert len(read_bytes(tmp_path / "small", most=1 << 30)) == 1000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(OSError, match="more than 999 bytes"):
        read_bytes(tmp_path / "small", most=999)


def test_a_file_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "model").write_text("x")
    with pytest.raises(NLPMetaError, match="is a file"), new_folder(tmp_path / "model", overwrite=True):
        pass


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../out", "."])
def test_names_that_lead_out_of_a_folder_are_refused(tmp_path, name):
    with pytest.raises(NLPMetaError, match="leads out of"):
        inside(tmp_path, name)


def test_a_link_that_leads_out_of_a_folder_is_refused(tmp_path):
    (tmp_path / "box").mkdir()
    os.symlink("/etc", tmp_path / "box" / "link")
    with pytest.raises(NLPMetaError, match="leads out of"):
        inside(tmp_path / "box", "link/passwd")
    assert inside(tmp_path / "box", "a/b") == (tmp_path / "box" / "a" / "b").resolve()


def test_the_digest_is_the_well_known_one_of_abc(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
