"""The machine and the software that a result belongs to, as plain data."""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from equivalences import devices


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a measurement may depend on: torch and its build, instruction set, threads, device, Python, platform."""
    return {
        "equivalences": _version("equivalences"),
        "torch": {
            "version": str(torch.__version__),
            "git": torch.version.git_version,
            "debug": torch.version.debug,
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
            "blas": _setting("BLAS_INFO"),
            "lapack": _setting("LAPACK_INFO"),
            "mkl": torch.backends.mkl.is_available(),
            "mkldnn": torch.backends.mkldnn.is_available(),
            "openmp": torch.backends.openmp.is_available(),
            "cpu capability": torch.backends.cpu.get_cpu_capability(),
        },
        "threads": {
            "within operations": torch.get_num_threads(),
            "between operations": torch.get_num_interop_threads(),
        },
        "device": {"type": device, "name": device_name(device)},
        "cpu": device_name("cpu"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in ("numpy", "python-flint")},
    }


def summary(device: str = "cpu") -> str:
    """The environment in one line."""
    found = environment(device)
    built = found["torch"]
    return (
        f"torch {built['version']}, {found['device']['name']}, {built['cpu capability']}, "
        f"{found['threads']['within operations']} thread(s), Python {found['python']}, {found['platform']}"
    )


def device_name(device: str) -> str:
    """What the device calls itself."""
    kind = devices.kind(device)
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu() if kind == "cpu" else kind


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _setting(name: str) -> str:
    """One build setting of torch, as `torch.__config__` spells it ("" if it does not)."""
    found = re.search(rf"\b{name}=([^,\s]*)", torch.__config__.show())
    return found[1] if found else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
