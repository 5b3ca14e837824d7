"""What a timing belongs to: machine, build and settings; and the refusal to compare what does not belong together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from equivalences import devices
from equivalences.running.environment import device_name, environment


class Incomparable(ValueError):
    """Two results that come from different devices; the message is one line."""


def info(wanted: Sequence[str]) -> dict[str, Any]:
    """The environment, and for each device its name, clocks and the settings that change what is computed."""
    found = environment(wanted[-1])
    return found | {
        "devices": {device: describe(device) for device in wanted},
        "accelerator": devices.accelerator(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def describe(device: str) -> dict[str, Any]:
    """One device: name and clocks; for CUDA capability, memory, driver, cuDNN and TF32 as well."""
    kind = devices.kind(device)
    if kind == "cpu":
        return {"name": device_name("cpu"), "clocks": {"MHz": _cpu_clock()}}
    if kind != "cuda":
        return {"name": device_name(device)}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuDNN": torch.backends.cudnn.version(),
        "TF32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cuDNN": torch.backends.cudnn.allow_tf32},
        "clocks": _asked(lambda: {"SM MHz": torch.cuda.clock_rate(device)}),
        "driver": _asked(_driver),
    }


def _asked(question: Any) -> Any:
    """The answer, or None where the tool that knows it (NVML) is missing."""
    try:
        return question()
    except Exception:
        return None


def _driver() -> str:
    import pynvml

    pynvml.nvmlInit()
    version = pynvml.nvmlSystemGetDriverVersion()
    return version.decode() if isinstance(version, bytes) else str(version)


def _cpu_clock() -> float | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    clocks = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE)]
    return max(clocks, default=None)


def names(machine: Mapping[str, Any]) -> dict[str, str]:
    """The devices that a result names: type -> name."""
    return {device: str(found["name"]) for device, found in machine.get("devices", {}).items()}


def comparable(here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Raises Incomparable unless both results come from devices of the same names."""
    ours, theirs = names(here), names(there)
    if ours != theirs:
        raise Incomparable(
            f"these results are of different devices and are not compared: here {_said(ours)}, there {_said(theirs)}; "
            "save a run on this device first, with --benchmark-autosave"
        )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What a saved result says otherwise than this session, one short phrase each; clocks move and do not count."""
    then, now = (dict(_flat(json.loads(json.dumps(found)))) for found in (there, here))
    return [f"{name} {then.get(name)}, now {now.get(name)}" for name in now | then if then.get(name) != now.get(name)]


def _flat(found: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(found, dict):
        yield name, found
        return
    for key, value in found.items():
        if key != "clocks" and not key.startswith("hz_actual"):
            yield from _flat(value, f"{name}.{key}" if name else key)


def _said(found: Mapping[str, str]) -> str:
    return ", ".join(f"{device} ({name})" for device, name in found.items()) or "a device that the file does not name"


def storage(wanted: Sequence[str]) -> str:
    """The folder of the saved runs of these devices: one for each set of devices."""
    text = "+".join(f"{device}-{describe(device)['name']}" for device in wanted)
    return re.sub(r"[^a-z0-9+.]+", "-", text.lower()).strip("-")
