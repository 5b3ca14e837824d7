"""The second pass: what is computed from what a GPU's tools would say."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEvent

from benchmarks import measure
from equivalences import devices


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


class Nothing:
    """Work that takes no time."""

    samples = 1

    def reset(self) -> None: ...
    def run(self) -> None: ...
    def check(self) -> None: ...
    def facts(self) -> dict[str, Any]:
        return {}


def test_energy_is_read_from_the_gpu_that_torch_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CUDA_VISIBLE_DEVICES says; 3 J for two runs."""
    nvml = SimpleNamespace(nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: uuid)
    counter = iter((0, 1000, 4000))
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: {"GPU-12-ab": next(counter)}[handle]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-ab"))
    assert measure.energy(Nothing(), "cuda", 0.7) == {"energy, J": 1.5}


def test_an_index_is_made_current_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[object] = []
    waited: list[object] = []
    monkeypatch.setattr(devices, "available", lambda: ("cpu", "cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    assert [devices.require(name) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]
    assert current == [1]
    devices.synchronize("cuda:1")
    assert waited == ["cuda:1"]
    for wrong in ("cuda:2", "cuda:-1", "cuda:", "cuda:x"):
        with pytest.raises(ValueError, match=f"^device '{wrong}' is not available here: choose one of cuda:0, cuda:1$"):
            devices.require(wrong)
