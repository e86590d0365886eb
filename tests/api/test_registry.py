import pytest
from repository import ROOT

from genprior.core.errors import SettingError
from genprior.inverse.base import Solver
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator
from genprior.priors.base import Trainable
from genprior.registry import (
    BASELINES,
    FITTED,
    FROM_EXEMPLAR,
    OPERATORS,
    PRIORS,
    SOLVERS,
    TRAINABLE,
    lookup,
)

ENTRIES = [(table, name) for table in (OPERATORS, PRIORS, SOLVERS, BASELINES) for name in table]


@pytest.mark.parametrize("table, name", ENTRIES)
def test_every_entry_resolves_and_has_its_test_file(table, name):
    cls = lookup(table, name, "entry")
    *folders, module = table[name].split(":")[0].split(".")[1:]
    assert cls.__doc__
    assert ROOT.joinpath("tests", *folders, f"test_{module}.py").exists()


def test_classes_keep_their_contract():
    assert all(issubclass(lookup(SOLVERS, name, "solver"), Solver) for name in SOLVERS)
    assert all(issubclass(lookup(OPERATORS, name, "operator"), Operator) for name in OPERATORS)
    assert all(issubclass(lookup(BASELINES, name, "baseline"), Baseline) for name in BASELINES)


def test_what_can_be_trained_or_made_of_a_picture_is_listed():
    classes = {name: lookup(PRIORS, name, "prior") for name in PRIORS}
    assert TRAINABLE == tuple(n for n, cls in classes.items() if issubclass(cls, Trainable))
    assert FROM_EXEMPLAR == tuple(n for n, cls in classes.items() if hasattr(cls, "from_exemplar"))
    assert FITTED == tuple(n for n, cls in classes.items() if hasattr(cls, "from_config"))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(SettingError, match="unknown solver 'dsp': choose one of .*dps"):
        lookup(SOLVERS, "dsp", "solver")
