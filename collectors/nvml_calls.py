"""Calls into the NVIDIA driver that are made again and again, with all that they need ready."""

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any


def ready(
    nvml: Any, function: str, handle: Any, answer: Any, *arguments: object
) -> Callable[[], int]:
    """Asks the driver's `function` about the device; gives NVML's code, and fills `answer`.

    It goes past the binding's wrapper, which looks up and makes anew what each call needs, by the
    same function and so without the interpreter's lock. One thread may call it at a time.
    """
    try:
        ask: Callable[..., int] = getattr(nvml.nvmlLib, function)
    except AttributeError:
        missing: int = nvml.NVML_ERROR_FUNCTION_NOT_FOUND
        return lambda: missing
    return partial(ask, ctypes.byref(handle.contents), *arguments, ctypes.byref(answer))
