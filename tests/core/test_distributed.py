"""The environment of `torchrun`, complete or not."""

import pytest

from genprior.core.distributed import Ranks, joined
from genprior.core.errors import SettingError

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
WHOLE = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def join(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Ranks:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with joined() as ranks:
        return ranks


def test_a_single_process_needs_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for environment in ({}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1"}, {"RANK": "7"}):
        assert join(monkeypatch, **environment) == Ranks()


@pytest.mark.parametrize(("changed", "message"), [
    ({"RANK": ""}, "RANK is not set, but WORLD_SIZE is: start the command by torchrun, or unset"),
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', not an integer >= 0"),
    ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1', not an integer >= 0"),
    ({"WORLD_SIZE": "9" * 99}, "WORLD_SIZE is '9+', not an integer >= 0"),
    ({"WORLD_SIZE": "0"}, "RANK is 1, but WORLD_SIZE is 0"),
    ({"RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
    ({"LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
    ({"MASTER_ADDR": ""}, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
    ({"MASTER_PORT": ""}, "WORLD_SIZE is 2, but MASTER_PORT is not set"),
    ({"MASTER_PORT": "first"}, "process 1 of 2 cannot join the others"),
])
def test_incomplete_or_impossible_variables_are_named(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        join(monkeypatch, **WHOLE | changed)
