"""An old name or argument works, warns where it is used, and says the new one."""

from __future__ import annotations

import runpy
import sys
import types
import warnings

import pytest

from companion.core import deprecation
from companion.core.deprecation import renamed_arguments
from companion.core.settings import settings_class

#: The module as users have it: the check of annotations in tests puts calls between ours.
PLAIN = runpy.run_path(deprecation.__file__)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package in which `old` was renamed to `new`."""
    module = types.ModuleType("some_package")
    module.new = len  # type: ignore[attr-defined]
    module.__getattr__ = PLAIN["renamed"]("some_package", {"old": "new"}, removed_in="0.3.0")
    monkeypatch.setitem(sys.modules, "some_package", module)
    return module


def test_an_old_name_is_the_new_one_and_warns_at_the_line_that_uses_it(
    package: types.ModuleType,
) -> None:
    with pytest.warns(FutureWarning) as caught:
        assert package.old is len
    (warning,) = caught
    assert str(warning.message) == (
        "some_package.old is now some_package.new; the old name works until version 0.3.0"
    )
    assert warning.filename == __file__
    with pytest.warns(FutureWarning, match="is now"):
        exec("from some_package import old", {})


def test_the_new_name_says_nothing_and_an_unknown_one_is_unknown(
    package: types.ModuleType,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert package.new is len
    with pytest.raises(AttributeError, match="'some_package' has no attribute 'other'"):
        _ = package.other


def test_an_old_argument_of_a_function_is_passed_on_and_warns() -> None:
    @PLAIN["renamed_arguments"](removed_in="0.3.0", size="length")
    def double(length: int) -> int:
        return 2 * length

    with pytest.warns(FutureWarning, match=r"double\(size=\.\.\.\) is now length=\.\.\.") as caught:
        assert double(size=3) == 6
    assert caught[0].filename == __file__
    with pytest.raises(TypeError, match="size is now length: give length alone"):
        double(3, length=3, size=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert double(length=3) == double(3) == 6


def test_an_old_argument_of_a_class_of_settings_is_passed_on_and_warns() -> None:
    @renamed_arguments(removed_in="0.3.0", size="length")
    @settings_class
    class Config:
        """Settings."""

        length: int = 1
        """A length."""

    with pytest.warns(FutureWarning, match="is now length"):
        assert Config(size=3) == Config(length=3)  # type: ignore[call-arg]
    assert isinstance(Config(), Config)
