import errno
from pathlib import Path

import pytest

from seqloom.core import errors
from seqloom.core.errors import DataError, MissingExtra, SeqloomError, mend_os_error


def test_a_data_error_says_where_what_and_how_to_mend() -> None:
    error = DataError("no such column", file="log.csv", row=3, value="tme", mend="Say --time timestamp.")
    assert str(error) == "log.csv, row 3: no such column (found 'tme'). Say --time timestamp."
    assert (error.file, error.row, error.value, error.mend) == ("log.csv", 3, "tme", "Say --time timestamp.")
    assert str(DataError("empty file", file=Path("a.fa"))) == "a.fa: empty file"
    assert str(DataError("nothing to read")) == "nothing to read"


def test_long_values_are_shortened() -> None:
    text = str(DataError("too long", value="x" * 500))
    assert len(text) < 100
    assert text.endswith("…)")


def test_an_absent_package_names_its_extra_and_is_an_import_error() -> None:
    with pytest.raises(ImportError, match=r"pip install 'seqloom\[audio\]'"):
        raise MissingExtra("soundfile", "audio")


def test_exit_codes_tell_user_errors_from_absent_things() -> None:
    codes = {kind.__name__: kind.exit_code for kind in SeqloomError.__subclasses__()}
    absent = {name for name, code in codes.items() if code == errors.ABSENT}
    assert absent == {"MissingExtra", "AbsentData"}
    assert set(codes.values()) == {errors.USER_ERROR, errors.ABSENT}
    assert (errors.OK, errors.FINDING_FALSE, errors.USER_ERROR, errors.ABSENT, errors.INTERRUPTED) == (0, 1, 2, 3, 130)


def test_config_and_data_errors_are_value_errors() -> None:
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(DataError, ValueError)


def test_errors_of_the_operating_system_name_file_and_mend(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "absent.csv").read_text()
    mended = mend_os_error(caught.value, "absent.csv")
    assert str(mended) == "absent.csv: no such file or directory. Check the path."
    full = mend_os_error(OSError(errno.ENOSPC, "No space left"), "m/model.safetensors")
    assert "no space is left" in str(full)
    assert "nothing already saved is lost" in str(full)
    assert "Weird failure" in str(mend_os_error(OSError(errno.EMLINK, "Weird failure"), "x"))
    from_polars = OSError("parquet: underlying IO error: File too large (os error 27)")
    assert "ulimit" in str(mend_os_error(from_polars, "x"))
