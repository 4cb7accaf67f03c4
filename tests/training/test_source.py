import pytest

from seqloom.core.errors import DataError
from seqloom.data.sequences import Sequences
from seqloom.training.source import FileSource, fingerprint_of


def test_both_files_are_stamped_and_a_change_of_either_is_refused(tmp_path):
    main, test = tmp_path / "main.txt", tmp_path / "test.txt"
    main.write_text("abc\n" * 9)
    test.write_text("abd\n" * 9)
    source = FileSource(path=str(main), test=str(test)).stamped()
    assert (source.fingerprint, source.test_fingerprint) == (fingerprint_of(main), fingerprint_of(test))
    assert FileSource.from_json(source.to_json()) == source
    assert (len(source.read()), len(source.read_test())) == (9, 9)
    test.write_text("abe\n" * 9)
    assert source.stamped() != source
    assert len(source.read()) == 9
    with pytest.raises(DataError, match=r"test\.txt.*changed"):
        source.read_test()
    main.write_text("abe\n" * 9)
    with pytest.raises(DataError, match=r"main\.txt.*changed"):
        source.read()


def test_what_came_from_memory_is_stamped_by_its_content():
    one, other = (FileSource().stamped(Sequences.of([["a", x]])) for x in "bc")
    assert one.fingerprint != other.fingerprint
    assert one == FileSource().stamped(Sequences.of([["a", "b"]]))
    assert one.test_fingerprint == ""
    with pytest.raises(DataError, match="from memory"):
        one.read()
