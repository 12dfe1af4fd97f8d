"""Every instruction set that this machine has computes what the baseline does."""

import pytest

import isa_cases
from convlet import _core


@pytest.mark.parametrize("family", isa_cases.FAMILIES)
@pytest.mark.parametrize("name", _core.supported_isas()[1:])
def test_agrees_with_baseline(name, family):
    wrong, count = isa_cases.differences(name, family)
    assert count > 0
    assert wrong == []
