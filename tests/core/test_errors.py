"""Exit codes: scripts tell kinds of errors apart by them."""

import pytest
import torch

from genprior.core import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SettingError("x"), 2),
        (TypeError("x"), 2),
        (errors.ImageError("x"), 3),
        (ValueError("x"), 3),
        (OSError("x"), 3),
        (errors.PeerError("x"), 3),
        (errors.CheckpointError("x"), 4),
        (MemoryError("x"), 5),
        (errors.SomeFailed("x"), 6),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_of_error_has_its_code(error: BaseException, code: int) -> None:
    assert errors.exit_code(error) == code


def test_what_concerns_all_files_is_no_error_of_one_file_only() -> None:
    for kind in errors.FOR_ALL:  # so whoever catches OF_ONE_FILE must let these pass first
        assert issubclass(kind, errors.OF_ONE_FILE)
    assert not issubclass(errors.PeerError, errors.OF_ONE_FILE)


def test_exhausted_memory_is_told_from_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)  # more than any machine has
    assert errors.memory_ran_out(caught.value)
    assert errors.memory_ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert not errors.memory_ran_out(RuntimeError("shapes differ"))
    assert not errors.memory_ran_out(ValueError("can't allocate memory"))

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("numpy.empty", exhausted)
    assert errors.memory_ran_out(RuntimeError("could not create a primitive"))
