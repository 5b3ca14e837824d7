"""The second pass, never timed: what a case's time buys, as fractions of what the device can do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.utils.benchmark import timer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ceilings import ceilings
from benchmarks.work import Work
from equivalences import devices

ENERGY_WINDOW = 1.0  # seconds: energy counters of GPUs tick every few tens of milliseconds


def extra_info(work: Work, device: str, seconds: float) -> dict[str, Any]:
    """Everything known of a case that took `seconds` a run (its median), after its check.

    FLOPs are those of the matrix products that PyTorch counts; a fraction of a ceiling says how much of the measured
    matrix product (or copy) this is.  A number that cannot be had here is left out.
    """
    facts = work.facts()
    steps = facts.get("steps")
    found: dict[str, Any] = {"samples/s": work.samples / seconds, **facts}
    if steps:
        found["us/step"] = 1e6 * seconds / steps
    top = ceilings(device, torch.get_num_threads())
    found["matrix-product ceiling, GFLOP/s"] = top.flops / 1e9
    found["copy ceiling, GB/s"] = top.bytes / 1e9
    flops = counted(work)
    if flops:
        found["FLOP"] = flops
        found["fraction of the matrix-product ceiling"] = flops / seconds / top.flops
    if (touched := getattr(work, "bytes", 0)) > 0:
        found["fraction of the copy ceiling"] = touched / seconds / top.bytes
    found |= peak_memory(work, device)
    if device.startswith("cuda"):
        found |= kernels(work) | energy(work, device, seconds)
    return found


def counted(work: Work) -> int:
    """The floating-point operations of one run: of the work itself, or of its `plain` twin (None: not counted)."""
    plain: Work | None = getattr(work, "plain", lambda: work)()
    if plain is None:
        return 0
    plain.reset()
    with FlopCounterMode(display=False) as counter:
        plain.run()
    return int(counter.get_total_flops())


def peak_memory(work: Work, device: str) -> dict[str, int]:
    """The most bytes in use during one run: by the allocator of an accelerator, or resident in the process (Linux)."""
    work.reset()
    if device == "cpu":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak: proc(5)
            work.run()
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            if met := re.search(r"VmHWM:\s*(\d+) kB", status):
                return {"peak resident memory, bytes": int(met[1]) * 1024}
        return {}
    kind: Any = torch.cuda if device.startswith("cuda") else getattr(torch, "accelerator", None)
    if not hasattr(kind, "max_memory_allocated"):
        return {}
    kind.reset_peak_memory_stats()
    work.run()
    devices.synchronize(device)
    return {"peak device memory, bytes": int(kind.max_memory_allocated())}


def kernels(work: Work) -> dict[str, float]:
    """CUDA: seconds that kernels ran, and seconds that the CPU spent launching them, in one run.

    Of a run of thousands of steps, a part is profiled and the rest inferred; nothing of one unlike any other.
    Source: torch.profiler documentation.
    """
    from torch.profiler import ProfilerActivity, profile

    part: Callable[[], float] = getattr(work, "part", lambda: _whole(work))
    work.reset()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as record:
        share = part()
        torch.cuda.synchronize()
    return {name: total / share for name, total in kernel_times(record.key_averages()).items()} if share else {}


def _whole(work: Work) -> float:
    work.run()
    return 1.0


def kernel_times(averages: Sequence[Any]) -> dict[str, float]:
    """Of a profile's averaged events, every kernel once: what launched it, and what it is in, have its time as well."""
    ran = [event for event in averages if event.device_type != DeviceType.CPU and not event.is_user_annotation]
    launches = [event for event in averages if event.key.startswith(("cudaLaunch", "cuLaunch", "cudaGraphLaunch"))]
    return {
        "kernel time, s": sum(event.self_device_time_total for event in ran) / 1e6,
        "launch time, s": sum(event.self_cpu_time_total for event in launches) / 1e6,
        "launches": sum(event.count for event in launches),
    }


def energy(work: Work, device: str, seconds: float) -> dict[str, float]:
    """CUDA: joules a run, from NVML's counter over a window long enough for it; nothing where there is no NVML."""
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid  # NVML counts the GPUs that torch is not shown, too
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        read: Callable[[], int] = lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # noqa: E731
        read()
    except Exception:  # NVML is not there, or this GPU does not count
        return {}
    return _over_a_window(work, read, max(1, int(ENERGY_WINDOW / seconds) + 1))


def _over_a_window(work: Work, read: Callable[[], int], runs: int) -> dict[str, float]:
    work.reset()
    timer()  # synchronises
    before = read()
    for _ in range(runs):
        work.run()
    timer()
    return {"energy, J": (read() - before) / 1e3 / runs}
