"""Classes of packages that may not be imported."""

import subprocess
import sys
from collections import Counter, OrderedDict

from genprior.core.foreign_classes import foreign_names, is_exactly, is_instance


def test_instances_and_subclasses() -> None:
    class Mine(OrderedDict):
        pass

    assert is_instance(OrderedDict(), "collections.OrderedDict")
    assert is_instance(Mine(), "collections.OrderedDict")
    assert not is_instance({}, "collections.OrderedDict")
    assert is_exactly(OrderedDict(), "collections.OrderedDict")
    assert not is_exactly(Mine(), "collections.OrderedDict")
    assert foreign_names(Counter(), "collections") == {"Counter"}
    assert foreign_names(Mine(), "collections") == {"OrderedDict"}


def test_what_is_no_class_or_does_not_exist_has_no_instances() -> None:
    assert not is_instance(3, "math.pi")
    assert not is_instance(3, "math.nothing.at.all")
    assert not is_instance(3, "no_such_package.Class")


def test_asking_imports_nothing() -> None:
    code = (
        "import sys; from genprior.core.foreign_classes import is_instance; "
        "assert not is_instance(3, 'wave.Wave_read'); sys.exit('wave' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
