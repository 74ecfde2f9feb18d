"""Energy beside work: ratios of what is known, None where something is not."""

import pytest

from melodi.energy.workload import Workload


def test_the_ratios_are_per_sample_and_per_joule() -> None:
    """MACs are those of one sample."""
    work = Workload(samples=4, macs=1_000, params=250)
    assert work.joules_per_sample(8.0) == pytest.approx(2.0)
    assert work.work_per_joule(8.0) == pytest.approx(500.0)
    assert work.macs_per_parameter == pytest.approx(4.0)


def test_what_is_not_told_gives_no_ratio() -> None:
    """Unknown joules, samples, MACs or parameters; and no work for 0 J."""
    work = Workload(samples=4, macs=1_000)
    assert work.joules_per_sample(None) is None
    assert work.joules_per_sample(0.0) == 0.0
    assert work.work_per_joule(0.0) is None
    assert work.work_per_joule(None) is None
    assert work.macs_per_parameter is None
    assert Workload(macs=5).work_per_joule(1.0) is None
    assert Workload().joules_per_sample(1.0) is None
