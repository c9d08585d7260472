import subprocess
import sys

import pytest

import nlpmeta


@pytest.mark.parametrize("name", nlpmeta.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(nlpmeta, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'FewShot'"):
        _ = nlpmeta.FewShot


def test_importing_the_package_does_not_wait_for_torch():
    heavy = "import sys, nlpmeta; print([m for m in ('torch', 'transformers', 'sklearn', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"
