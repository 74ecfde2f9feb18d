"""Finds the card, as NVML knows it, on which CUDA runs kernels: the two count cards differently."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BUS_ID_BYTES = 32


class NotTold(Exception):
    """Nobody says on which card kernels run; why not."""


@dataclass(frozen=True, slots=True)
class Card:
    """The card that is watched."""

    handle: Any
    uuid: str
    doubt: str | None
    """Why kernels may run on another one; None: they run on this one."""


def bus_id_of(device: str, *, library: str = "libcuda.so.1") -> str:
    """The PCI bus id of `cuda:0` or another, as CUDA counts those that it may use.

    CUDA itself is asked: it alone knows what CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER make of
    the cards. That makes no context. A MIG instance has the bus id of its card. Raises NotTold.
    """
    if not device.startswith("cuda"):
        raise NotTold(f"kernels run on the device {device}")
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        raise NotTold(str(error)) from error
    found, text = ctypes.c_int(), ctypes.create_string_buffer(BUS_ID_BYTES)
    number = int(device.partition(":")[2] or 0)
    for name, *arguments in (
        ("cuInit", 0),
        ("cuDeviceGet", ctypes.byref(found), number),
        ("cuDeviceGetPCIBusId", text, BUS_ID_BYTES, found),
    ):
        code = getattr(cuda, name)(*arguments)
        if code != 0:
            raise NotTold(f"CUDA answers {name} for {device} with error {code}")
    return text.value.decode()


def card_at(nvml: Any, bus_id: Callable[[], str]) -> Card:
    """NVML's handle of the card that `bus_id` tells; if it raises NotTold, of the only card.

    With several it is the first, with a doubt; so it is where NVML does not know the bus id.
    """
    try:
        handle, doubt = nvml.nvmlDeviceGetHandleByPciBusId(bus_id()), None
    except (NotTold, nvml.NVMLError) as error:
        count = nvml.nvmlDeviceGetCount()
        only = count == 1 and isinstance(error, NotTold)
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        doubt = None if only else f"{error}; this is the first of {count} that NVML lists"
    return Card(handle, nvml.nvmlDeviceGetUUID(handle), doubt)
