"""Who is on a GPU, over the real binding and a stub driver."""

import pynvml
import pytest
from nvml_stub import Call, NvmlStub

from collectors.estimate import EstimateCollector
from collectors.nvml import NvmlCollector
from collectors.nvml_processes import gpu_processes
from collectors.overlap import NotAdded

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


@pytest.fixture
def busy(stub: NvmlStub) -> tuple[NvmlStub, NvmlCollector, str]:
    """A GPU with a busy process and an idle one, one second after the start."""
    stub.add_process(10, 1_000)
    stub.add_process(20, 1_000)
    stub.set_busy(10, 60)
    stub.advance(1)
    return stub, NvmlCollector(now_ns=stub.now_ns, sleep=stub.sleep), f"gpu:{stub.uuid()}"


def test_each_sample_of_a_process_is_told_once(
    busy: tuple[NvmlStub, NvmlCollector, str],
) -> None:
    """Asked again before the driver sampled anew, nobody was busy; later they are."""
    stub, collector, name = busy
    assert collector.busy_processes() == {name: {10: 60}}
    assert collector.busy_processes() == {name: {}}
    stub.set_busy(20, 30)
    stub.advance(0.5)
    assert collector.busy_processes() == {name: {10: 60, 20: 30}}


def test_success_raised_as_an_error_means_that_nobody_was_busy(stub: NvmlStub) -> None:
    """The binding raises it where a driver has no sample: known, and nobody."""
    stub.add_process(10, 1_000)
    stub.advance(1)
    handle = pynvml.nvmlDeviceGetHandleByIndex
    collector = NvmlCollector(now_ns=stub.now_ns, sleep=stub.sleep)
    with pytest.raises(pynvml.NVMLError) as raised:
        pynvml.nvmlDeviceGetProcessUtilization(handle(0), 0)
    assert raised.value.value == pynvml.NVML_SUCCESS
    assert collector.busy_processes() == {f"gpu:{stub.uuid()}": {}}


def test_a_gpu_that_does_not_tell_is_left_out(eight: NvmlStub) -> None:
    """As with MIG: unknown is not the same as nobody."""
    eight.fail(Call.BUSY, NOT_SUPPORTED, device=3)
    collector = NvmlCollector(now_ns=eight.now_ns, sleep=eight.sleep)
    found = collector.busy_processes()
    assert len(found) == 7
    assert f"gpu:{eight.uuid(3)}" not in found


def test_the_meter_that_knows_processes_is_found_among_others(stub: NvmlStub) -> None:
    """Also where some of its domains are not added up; None where no meter knows."""
    nvml = NvmlCollector(now_ns=stub.now_ns, sleep=stub.sleep)
    other = EstimateCollector(now_ns=stub.now_ns)
    assert gpu_processes([other]) is None
    assert gpu_processes([other, nvml]) is nvml
    assert gpu_processes([NotAdded(nvml, [])]) is nvml
