"""Which domains may be added, and which pair is named where they may not."""

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.base import Domain, Kind, Measure
from collectors.overlap import contains, left_out


def domain(name: str, kind: Kind = Kind.CPU, scope: str | None = None) -> Domain:
    scope = scope or name.partition(":")[0]
    return Domain(name=name, kind=kind, scope=scope, source="test:x", measure=Measure.COUNTER)


PACKAGES = [domain("package:0"), domain("package:1")]
MEMORY = [domain("dram:0", Kind.DRAM), domain("dram:1", Kind.DRAM)]
GPUS = [domain("gpu:A", Kind.GPU), domain("gpu:B", Kind.GPU)]
MODULE = domain("gpu:GH200", Kind.GPU, "module")
GRACE = domain("hwmon:grace-0", Kind.CPU, "grace")
GUESS = replace(domain("package:0"), estimated=True)


def test_packages_memory_and_gpus_may_be_added() -> None:
    """The ordinary server: nothing in it is refused, left out, or part of another."""
    server = [*PACKAGES, *MEMORY, *GPUS]
    assert left_out(server) == left_out([]) == set()
    assert not any(contains(*pair) for pair in permutations(server, 2))


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (domain("psys:0", Kind.PLATFORM), PACKAGES[0]),
        (domain("node:meter", Kind.PLATFORM), GPUS[0]),
        (PACKAGES[0], domain("core:0")),
        (PACKAGES[0], domain("uncore:0")),
        (MODULE, GRACE),
        (domain("x:card", Kind.GPU), replace(domain("x:pkg", Kind.GPU), part_of="x:card")),
        (GRACE, GUESS),
    ],
    ids=lambda one: one.name,
)
def test_a_domain_and_what_contains_it_may_not(outer: Domain, inner: Domain) -> None:
    """It contains the other, and not the other way round."""
    assert contains(outer, inner)
    assert not contains(inner, outer)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (PACKAGES[0], domain("core:1")),
        (MODULE, PACKAGES[0]),
        (GPUS[0], GRACE),
        (GPUS[0], GUESS),
        (PACKAGES[0], MEMORY[0]),
    ],
    ids=lambda one: one.name,
)
def test_neighbours_contain_each_other_in_no_order(one: Domain, other: Domain) -> None:
    """Another socket's cores, a package beside a board's GPU counter, memory beside its package."""
    assert not contains(one, other)
    assert not contains(other, one)


def test_a_platforms_meter_gives_way_to_its_parts() -> None:
    """A plug that calls itself summable takes no GPU out of the sums; alone it may be added."""
    plug = domain("node:plug", Kind.PLATFORM)
    assert left_out([plug, *GPUS, *PACKAGES]) == {"node:plug"}
    assert left_out([plug]) == set()


ALL = [*PACKAGES, *MEMORY, *GPUS, MODULE, GRACE, domain("core:0"), domain("psys:0", Kind.PLATFORM)]


@given(st.lists(st.sampled_from(ALL), unique=True))
def test_what_is_left_may_be_added(domains: list[Domain]) -> None:
    """Law: of any set without those left out none contains another, and they were of the set."""
    left = left_out(domains)
    kept = [one for one in domains if one.name not in left]
    assert not any(contains(*pair) for pair in permutations(kept, 2))
    assert left <= {one.name for one in domains}
    assert len(left) < len(domains) or not domains
