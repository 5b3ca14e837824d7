"""The second pass: what is computed from what a GPU's tools would say."""

from __future__ import annotations

from typing import Any

import pytest
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEvent

from benchmarks import measure


def event(number: int, name: str, start: int, end: int, device: DeviceType, **more: Any) -> FunctionEvent:
    places = {"device_type": device, "use_device": "cuda", "is_legacy": False, "stack": []}
    return FunctionEvent(id=number, name=name, thread=1, start_us=start, end_us=end, **places, **more)


def test_a_kernel_is_counted_once() -> None:
    """One kernel of 100 us, as the profiler has it: under its launch, under the optimiser's step, and by itself."""
    launch = event(3, "cudaLaunchKernel", 20, 30, DeviceType.CPU)
    launch.append_kernel("gemm", 0, 100)
    events = [
        event(1, "Optimizer.step#SGD.step", 0, 500, DeviceType.CPU),
        event(2, "aten::mm", 10, 60, DeviceType.CPU),
        launch,
        event(4, "Optimizer.step#SGD.step", 100, 200, DeviceType.CUDA, is_user_annotation=True),
        event(5, "gemm", 100, 200, DeviceType.CUDA),
    ]
    found = EventList(events, use_device="cuda")
    found._build_tree()
    assert measure.kernel_times(found.key_averages()) == {
        "kernel time, s": pytest.approx(100e-6),
        "launch time, s": pytest.approx(10e-6),
        "launches": 1,
    }
