"""What would go wrong, mostly in silence, if a folder of latents were given to the Stable Audio trainers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audioprep.engine.commit import read_json
from audioprep.export.stable_audio import CONFIG, DETAILS, EXCLUDED, FILELIST, SILENCE

_REPLACED = "the trainer takes a random other item in its place and says so in one line; export again"
_GIVE = "give the trainer's own JSON file"
_MIXED = "latents of different encoders are mixed; export each shard set to a folder of its own"


def check(
    folder: Path,
    *,
    dataset_config: Path | None = None,
    model_config: Path | None = None,
    on_files: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Reads a whole folder of latents as the trainers would, and says what is wrong with it.

    Args:
        folder: made by an export, or by upstream's own scripts.
        dataset_config: of stable-audio-tools; None for the one in the folder.
        model_config: of stable-audio-tools, if that is to be looked at, too.
        on_files: called with the number of files read and of all files.

    Returns:
        The problems, each with its remedy; none where all is well.
    """
    if not folder.is_dir():
        return [f"{folder}: is no folder. Give one that `audioprep export stable-audio` has made."]
    checked = _Check(folder, dataset_config, model_config)
    files = list(checked.files())
    for number, name in enumerate(files, start=1):
        checked.file(name)
        on_files(number, len(files))
    checked.whole()
    return checked.problems


class _Check:
    """One check of one folder; the problems that many files have are said once."""

    def __init__(self, folder: Path, dataset_config: Path | None, model_config: Path | None) -> None:
        self._folder = folder
        self._found: dict[str, list[str]] = {}
        self._details = read_json(folder / DETAILS) or {}
        self._layout = self._details.get("layout") or ("sa3" if (folder / SILENCE).is_file() else "sat")
        self._model = self._json(model_config, model_config.name, _GIVE) if model_config else None
        inside = folder / CONFIG
        self._config_name = (dataset_config or inside).name
        has_config = dataset_config is not None or inside.is_file()
        self._config = self._json(dataset_config or inside, self._config_name, _GIVE) if has_config else None
        self._conditions = self._conditions_of_model()
        self._ratio: int | None = self._details.get("downsampling_ratio")
        # What all files have to have in common: as the details say, or as in the first file.
        stated = {"channels": "latent_dim", "number type": "dtype", "sample_rate": "sample_rate"}
        self._common = {fact: self._details[name] for fact, name in stated.items() if name in self._details}
        self._lengths: dict[int, str] = {}
        self._files = 0

    @property
    def problems(self) -> list[str]:
        return [
            f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {what}"
            for what, names in self._found.items()
        ]

    def _add(self, name: str, what: str) -> None:
        self._found.setdefault(what, []).append(name)

    def _json(self, path: Path, name: str, remedy: str) -> dict[str, Any] | None:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            value = self._add(name, f"is not there; {remedy}")
        except (OSError, ValueError):
            value = self._add(name, f"is not readable JSON; {remedy}")
        return value if isinstance(value, dict) else None

    def _conditions_of_model(self) -> list[str]:
        """What every sidecar must have for the model to be conditioned on."""
        if self._model is None:
            return ["prompt", "seconds_start"] if self._layout == "sat" else ["prompt"]
        conditioning = self._model.get("model", {}).get("conditioning", {})
        ids = [config["id"] for config in conditioning.get("configs", [])]
        return [name for name in ids if name not in conditioning.get("default_keys", {})]

    def files(self) -> Iterator[str]:
        """The samples that the trainer would find, as paths from the folder."""
        there = {
            os.path.relpath(os.path.join(parent, name), self._folder)
            for parent, _, names in os.walk(self._folder, followlinks=True)
            for name in names
            if name.lower().endswith(".npy") and not name.startswith(".")
        }
        if self._layout == "sa3":
            there.discard(SILENCE)
        filelist = self._folder / FILELIST
        if not filelist.is_file():
            yield from sorted(there)
            return
        listed = [line.strip() for line in filelist.read_text(encoding="utf-8").splitlines()]
        if "" in listed:
            self._add(FILELIST, "has an empty line, which the trainer takes for a file; remove it")
        listed = [name for name in listed if name]
        if len(set(listed)) < len(listed):
            self._add(FILELIST, "names a file twice, which is then seen twice in an epoch; remove the second")
        for name in sorted(there - set(listed)):
            self._add(name, f"is not in {FILELIST}, so the trainer never sees it; add it, or remove the file")
        yield from dict.fromkeys(listed)

    def file(self, name: str) -> None:
        """Checks one sample: its latents and its sidecar."""
        self._files += 1
        path = self._folder / name
        frames = self._latents(name, path)
        # As the trainers find it: they replace `.npy` in the whole path, which `whole` forbids.
        sidecar = self._json(path.with_suffix(".json"), name.replace(".npy", ".json"), _REPLACED)
        if sidecar is not None:
            self._sidecar(name.replace(".npy", ".json"), sidecar, frames)

    def _latents(self, name: str, path: Path) -> int | None:
        """Checks the latents of one sample, and gives their number of frames."""
        try:
            latents = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return self._add(name, f"is not there; {_REPLACED}")
        except (OSError, ValueError, EOFError):
            return self._add(name, f"is no readable .npy file of numbers; {_REPLACED}")
        if latents.ndim != 2 or latents.dtype not in (np.float16, np.float32) or not latents.shape[1]:
            form = f"{latents.dtype} of shape {list(latents.shape)}"
            self._add(name, f"is {form}, and not float16 or float32 [channels, frames]; export again")
            return None
        if not np.isfinite(latents).all():
            self._add(name, "has values that are not finite, which end the training; encode its audio again")
        self._agree(name, "channels", latents.shape[0])
        self._agree(name, "number type", str(latents.dtype))
        frames = latents.shape[1]
        self._lengths.setdefault(frames, name)
        return frames

    def _sidecar(self, name: str, sidecar: dict[str, Any], frames: int | None) -> None:
        mask = sidecar.get("padding_mask")
        if not isinstance(mask, list) or 1 not in mask or any(bit not in (0, 1) for bit in mask):
            self._add(name, f"has no padding_mask, a list of 0 and 1 with at least one 1; {_REPLACED}")
        elif frames is not None and len(mask) != frames:
            self._add(name, f"has a padding_mask of another length than its latents; {_REPLACED}")
        if not _is_number(sidecar.get("seconds_total")):
            self._add(name, f"has no number seconds_total; {_REPLACED} (where all lack it, the trainer crashes)")
        elif _is_number(self._ratio) and isinstance(mask, list) and not self._lasts_as_long(sidecar, mask.count(1)):
            self._add(name, f"lasts longer or shorter than {self._ratio} samples a frame make it; {_MIXED}")
        for condition in self._conditions:
            value = sidecar.get(condition)
            if condition == "prompt" and not isinstance(value, str):
                self._add(name, "has no text in prompt; the model is conditioned on it; see --default-prompt")
            elif condition.startswith("seconds_") and not _is_number(value):
                self._add(name, f"has no number {condition}; the model is conditioned on it; export again")
            elif value is None:
                self._add(name, f"has no {condition}; the model is conditioned on it; add it")
        if "sample_rate" in sidecar:
            self._agree(name, "sample_rate", sidecar["sample_rate"])

    def _lasts_as_long(self, sidecar: dict[str, Any], own: int) -> bool:
        """Whether `own` frames are as long as the times in the sidecar say, to a frame and a second."""
        match sidecar:
            case {"timestamps": [begin, end], "sample_rate": rate} if end > begin and rate:
                share, frame = end - begin, self._ratio / rate
                seconds = own * frame / share
                return -2 * frame / share <= sidecar["seconds_total"] - seconds <= 1 + 2 * frame / share
        return True

    def _agree(self, name: str, fact: str, value: Any) -> None:
        stated = self._common.setdefault(fact, value)
        if value != stated:
            self._add(name, f"its {fact} is {value}, and not {stated}; {_MIXED}")

    def whole(self) -> None:
        """Checks what concerns all files together."""
        if ".npy" in str(self._folder.resolve()):
            self._add(str(self._folder), "`.npy` is in its path, where the trainers replace it, too; rename the folder")
        if (self._folder / ".audioprep" / "export.json").is_file() and not self._details:
            self._add(str(self._folder), "the export is not finished; run the same command again, to its end")
        if not self._files:
            self._add(str(self._folder), "holds no latents (.npy); export into it")
        if self._layout == "sa3":
            self._check_silence()
        else:
            crop = self._check_config() if self._config else None
            self._check_lengths(crop)
        if self._model is not None:
            self._check_model(self._model)

    def _check_silence(self) -> None:
        path = self._folder / SILENCE
        try:
            silence = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            self._add(
                SILENCE, "is not there or damaged, so short items are padded with zeros, which is noise; export again"
            )
            return
        if (
            silence.ndim != 3
            or silence.shape[:2] != (1, self._common.get("channels"))
            or not np.isfinite(silence).all()
        ):
            channels = self._common.get("channels", "D")
            self._add(SILENCE, f"is not finite numbers of shape (1, {channels}, frames); export again")

    def _check_config(self) -> int | None:
        """Checks the data set's configuration, and gives the length that the trainer would cut to."""
        config, name = self._config or {}, self._config_name
        if config.get("dataset_type") != "pre_encoded":
            self._add(name, "its dataset_type is not pre_encoded, so the trainer looks for audio; set it")
        entries = config.get("datasets") or []
        if any("latent_crop_length" in entry for entry in entries):
            self._add(name, "latent_crop_length is inside `datasets`, where it is ignored; move it to the top level")
        for entry in entries:
            if not {"id", "path"} <= entry.keys():
                self._add(name, "an entry of `datasets` lacks its id or path; add it")
        paths = [Path(entry["path"]) for entry in entries if "path" in entry]
        if not any(path.resolve() == self._folder.resolve() for path in paths):
            self._add(name, f"its path is not {self._folder.resolve()}: was the folder moved? Mend the path")
        for ignored in ("exclude_paths_file", "include_paths_file"):
            if ignored in config and config[ignored] != str(self._folder.resolve() / EXCLUDED):
                self._add(name, f"{ignored} is known to a fork only; use `audioprep export … --exclude`")
        if config.get("random_crop") and self._model and "seconds_start" in self._conditions:
            self._add(name, "random_crop leaves seconds_start as it was (pull request 219); use --crops random")
        return config.get("latent_crop_length")

    def _check_lengths(self, crop: int | None) -> None:
        if not self._lengths:
            return
        shortest, longest = min(self._lengths), max(self._lengths)
        if crop is None and shortest < longest:
            name = self._lengths[shortest]
            remedy = f"set latent_crop_length at the top level of the configuration, to at most {shortest}"
            self._add(
                name, f"has {shortest} frames, and {self._lengths[longest]} {longest}: no batch fits both; {remedy}"
            )
        elif crop is not None and shortest < crop:
            short = f"has {shortest} frames, fewer than latent_crop_length ({crop}), so no batch fits it"
            self._add(self._lengths[shortest], f"{short}; export again with --short pad or drop")

    def _check_model(self, model: dict[str, Any]) -> None:
        if self._layout == "sat" and not model.get("training", {}).get("pre_encoded"):
            self._add("model config", "training.pre_encoded is not true, so latents are encoded once more; set it")
        autoencoder = model.get("model", {}).get("pretransform", {}).get("config", {})
        expected = {
            "channels": (autoencoder.get("latent_dim"), self._common.get("channels")),
            "samples a frame": (autoencoder.get("downsampling_ratio"), self._ratio),
            "sample_rate": (model.get("sample_rate"), self._common.get("sample_rate")),
        }
        for fact, (of_model, here) in expected.items():
            if of_model is not None and here is not None and of_model != here:
                self._add(
                    "model config",
                    f"its {fact} is {of_model}, and {here} here; encode with the model's own autoencoder",
                )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
