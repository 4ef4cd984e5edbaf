"""Neural encoders: audioprep beside the loops that users have, with the same models, weights and files.

The models have their original sizes and random weights: speed does not depend on what they have learned. The files
are 44.1 kHz stereo flac of 5 to 300 s, all shortened alike (but to no less than a second) until they last `--minutes`
together. Both contenders read the files, encode them and write what comes out; they take turns. Time runs from the
moment when the first model is loaded until the last file is written: for audioprep that is its whole engine, shards
included. Leave the machine to it: other work slows down the loops' threads, which wait for each other, more than
audioprep's processes.

| encoder | the loop it stands beside |
| --- | --- |
| dac | descript's package: `DAC.encode` of each file as a whole, read by its `AudioSignal` |
| vae | `pre_encode.py` of stable-audio-tools: a loader with 4 workers pads or crops every file to one length (2097152 |
|     | samples, shortened with the files), and batches (of 8 on a GPU, else 1) go through `AutoencoderOobleck` |
| muq-vq | `librosa.load`, MuQ of each file as a whole, the nearest codeword |
| mimi | `librosa.load`, `MimiModel.encode` of each file as a whole |

A crop loses the rest of its file, so only what a loop encodes counts as audio. On a GPU the loops run as torch lets
them, with TF32 in convolutions; audioprep computes in float32, unless told otherwise: `--set tf32=true`.

For mimi there is a published figure: pocket-tts computes latents of that size for 200 h of audio in 8 minutes on one
H100 with 24 cores, 1,500 times real time.

Exits 1 where audioprep gives less than the loop's hours on a CPU, or less than three times as many on a GPU.

Run: `python bench/encoders.py [--encoders dac vae muq-vq mimi] [--files 12] [--minutes 1.5] [--repeats 1]
[--device cpu] [--set tf32=true] [--tiny]`. It needs the extras codecs and muq, and the dev group.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from decode import RATE, write_music
from numpy.typing import NDArray

SHORTEST, LONGEST = 5, 300
SAMPLE_SIZE = 2097152
FLOORS = {"cpu": 1.0, "cuda": 3.0}
PUBLISHED = "pocket-tts, as published: 1,500 on one H100"


@dataclass(frozen=True)
class Corpus:
    """Files to encode.

    Attributes:
        scale: how much shorter they are than 5 to 300 s.
    """

    folder: Path
    scale: float

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@dataclass(frozen=True)
class Result:
    """What one contender did.

    Attributes:
        audio: seconds of audio that it encoded.
        seconds: that it took.
        busy: share of the time in which audioprep's encoders did not wait for audio.
        memory: peak of all its processes together, in bytes (a shared page counts once).
        gpu_memory: peak on the device.
    """

    audio: float
    seconds: float
    busy: float | None = None
    memory: int = 0
    gpu_memory: int = 0

    @property
    def rate(self) -> float:
        """Hours of audio an hour."""
        return self.audio / self.seconds


def make_corpus(folder: Path, files: int, minutes: float) -> Corpus:
    """So many files from `SHORTEST` to `LONGEST` s in even steps, in random order; several sets where there is time."""
    import soundfile

    folder.mkdir()
    lengths = [SHORTEST + (LONGEST - SHORTEST) * number / (files - 1) for number in range(files)]
    sets = max(1, round(minutes * 60 / sum(lengths)))
    scale = min(1.0, minutes * 60 / sum(lengths))
    lengths = random.Random(0).sample(lengths * sets, files * sets)
    write_music(folder.parent / "music.wav", max(1.0, scale * LONGEST))
    music, _ = soundfile.read(folder.parent / "music.wav", dtype="float32")
    for number, length in enumerate(lengths):
        sound = music[: int(max(1.0, length * scale) * RATE)] * (1 - number / (2 * len(lengths)))
        soundfile.write(folder / f"{number:04d}.flac", sound, RATE)
    return Corpus(folder, scale)


def make_dac(folder: Path, tiny: bool) -> dict[str, Any]:
    import dac
    import torch

    config: dict[str, Any] = {
        "encoder_dim": 64, "encoder_rates": [2, 4, 8, 8], "latent_dim": 1024, "decoder_dim": 1536,
        "decoder_rates": [8, 8, 4, 2], "n_codebooks": 9, "codebook_size": 1024, "codebook_dim": 8, "sample_rate": RATE,
    }  # fmt: skip
    if tiny:
        config |= {"encoder_dim": 4, "latent_dim": 64, "decoder_dim": 16}
    weights = {"state_dict": dac.DAC(**config).state_dict(), "metadata": {"kwargs": config}}
    torch.save(weights, folder / "weights.pth")
    return {"weights": str(folder / "weights.pth")}


def make_vae(folder: Path, tiny: bool) -> dict[str, Any]:
    from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck

    small: dict[str, Any] = {"encoder_hidden_size": 4, "decoder_channels": 4, "decoder_input_channels": 4}
    AutoencoderOobleck(**(small if tiny else {})).save_pretrained(folder)
    return {"weights": str(folder)}


def make_muq(folder: Path, tiny: bool) -> dict[str, Any]:
    import torch
    from muq import MuQ, MuQConfig

    from audioprep.encoders.vq import save_codebook

    conformer = {
        "position_embeddings_type": "rotary", "rotary_embedding_base": 10_000, "num_attention_heads": 16,
        "intermediate_size": 128 if tiny else 4096, "hidden_act": "swish", "hidden_dropout": 0.1,
        "activation_dropout": 0.1, "attention_dropout": 0.1, "conformer_conv_dropout": 0.1,
        "conv_depthwise_kernel_size": 31, "layer_norm_eps": 1e-5, "layerdrop": 0.0, "feat_extract_activation": "gelu",
        "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16, "max_source_positions": 5000,
    }  # fmt: skip
    sizes: dict[str, Any] = {"conv_dim": 16, "encoder_dim": 32, "encoder_depth": 2} if tiny else {}
    stat = {"melspec_2048_mean": 6.768444971712967, "melspec_2048_std": 18.417922652295623}
    config: Any = MuQConfig(w2v2_config=conformer, stat=stat, **sizes)
    MuQ(config).save_pretrained(folder)
    save_codebook(torch.randn(16_384, config.encoder_dim), {}, folder / "codebook.safetensors")
    return {"weights": str(folder), "codebook": str(folder / "codebook.safetensors")}


def make_mimi(folder: Path, tiny: bool) -> dict[str, Any]:
    import torch
    from transformers import MimiConfig, MimiModel

    small: dict[str, Any] = {"num_filters": 4, "hidden_size": 16, "num_hidden_layers": 1, "upsample_groups": 16}
    model = MimiModel(MimiConfig(**(small if tiny else {})))
    for name, codebook in model.named_buffers():
        if name.endswith("embed_sum"):
            torch.nn.init.normal_(codebook)
    model.save_pretrained(folder)
    return {"weights": str(folder)}


Loop = Iterator[float]
"""Gives 0 when its model is loaded, then the seconds of each file that it has encoded and written."""


def descript_loop(settings: dict[str, Any], corpus: Corpus, out: Path, device: str) -> Loop:
    import dac
    import torch
    from audiotools import AudioSignal

    model: Any = dac.DAC.load(settings["weights"]).eval().to(device)
    yield 0
    for path in corpus.files:
        signal: Any = AudioSignal(path).to_mono().resample(model.sample_rate)
        with torch.inference_mode():
            codes = model.encode(model.preprocess(signal.audio_data.to(device), signal.sample_rate))[1]
        np.save(out / path.stem, codes.cpu().numpy())
        yield signal.duration


class Crops:
    """Files padded or cropped to one length, as stable-audio-tools' `SampleDataset` gives them."""

    def __init__(self, files: list[Path], samples: int) -> None:
        self._files = files
        self._samples = samples

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[NDArray[Any], int]:
        import soundfile

        sound = soundfile.read(self._files[number], frames=self._samples, dtype="float32", always_2d=True)[0]
        return np.pad(sound.T, ((0, 0), (0, self._samples - len(sound)))), len(sound)


def stable_audio_loop(settings: dict[str, Any], corpus: Corpus, out: Path, device: str) -> Loop:
    import torch
    from diffusers.models.autoencoders import autoencoder_oobleck
    from torch.utils.data import DataLoader

    model_class: Any = autoencoder_oobleck.AutoencoderOobleck
    model = model_class.from_pretrained(settings["weights"]).eval().to(device)
    samples = math.ceil(SAMPLE_SIZE * corpus.scale / model.hop_length) * model.hop_length
    crops: Any = Crops(corpus.files, samples)
    loader = DataLoader(crops, batch_size=1 if device == "cpu" else 8, num_workers=4)
    yield 0
    done = 0
    for sounds, own in loader:
        with torch.inference_mode():
            latents = model.encode(sounds.to(device)).latent_dist.sample().cpu().numpy()
        for latent, count in zip(latents, own.tolist(), strict=True):
            np.save(out / f"{done:09d}.npy", latent)
            mask = (np.arange(latent.shape[1]) * samples < count * latent.shape[1]).astype(int).tolist()
            (out / f"{done:09d}.json").write_text(json.dumps({"padding_mask": mask}))
            done += 1
            yield count / RATE


def muq_loop(settings: dict[str, Any], corpus: Corpus, out: Path, device: str) -> Loop:
    import librosa
    import torch
    from muq import MuQ
    from safetensors.torch import load_file

    model: Any = MuQ.from_pretrained(settings["weights"]).eval().to(device)
    codebook = load_file(settings["codebook"])["codebook"].to(device)
    librosa.load(corpus.files[0], sr=24_000)  # imports what it needs
    yield 0
    for path in corpus.files:
        sound, rate = librosa.load(path, sr=24_000)
        with torch.inference_mode():
            hidden = model(torch.from_numpy(sound)[None].to(device), output_hidden_states=True).last_hidden_state
            tokens = torch.cdist(hidden[0], codebook).argmin(1)
        np.save(out / path.stem, tokens.cpu().numpy())
        yield len(sound) / rate


def mimi_loop(settings: dict[str, Any], corpus: Corpus, out: Path, device: str) -> Loop:
    import librosa
    import torch
    from transformers import MimiModel

    model: Any = MimiModel.from_pretrained(settings["weights"]).eval().to(device)  # pyright: ignore
    librosa.load(corpus.files[0], sr=24_000)  # imports what it needs
    yield 0
    for path in corpus.files:
        sound, rate = librosa.load(path, sr=24_000)
        with torch.inference_mode():
            codes = model.encode(torch.from_numpy(sound)[None, None].to(device)).audio_codes
        np.save(out / path.stem, codes.cpu().numpy())
        yield len(sound) / rate


ENCODERS: dict[str, tuple[Callable[[Path, bool], dict[str, Any]], Callable[..., Loop]]] = {
    "dac": (make_dac, descript_loop),
    "vae": (make_vae, stable_audio_loop),
    "muq-vq": (make_muq, muq_loop),
    "mimi": (make_mimi, mimi_loop),
}


def registered(encoder: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the settings by which audioprep knows an encoder of these benchmarks."""
    settings = dict(settings)
    return (f"hf:{settings.pop('weights')}" if encoder in ("mimi", "encodec", "xcodec") else encoder), settings


def run_loop(encoder: str, settings: dict[str, Any], corpus: Corpus, out: Path, device: str) -> Result:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    out.mkdir()
    loop = ENCODERS[encoder][1](settings, corpus, out, device)
    next(loop)
    start = time.perf_counter()
    audio = sum(loop)
    return Result(audio, time.perf_counter() - start)


def run_audioprep(encoder: str, settings: dict[str, Any], corpus: Corpus, out: Path, device: str) -> Result:
    from audioprep.cli.console import QuietObserver
    from audioprep.encoders.registry import describe_encoder
    from audioprep.engine.assemble import ShardSettings
    from audioprep.engine.run import Job, Options, run
    from audioprep.engine.worker import Progress
    from audioprep.stages.encode import Encode
    from audioprep.stages.text import ReadText

    class Clock(QuietObserver):
        """Notes when the first worker had loaded its model."""

        started = math.inf

        def progress(self, progress: Progress) -> None:
            if progress.elapsed:
                self.started = min(self.started, time.perf_counter() - progress.elapsed)

    encoder, settings = registered(encoder, settings)
    stage = Encode(encoder, settings, describe_encoder(encoder, settings | {"device": device}), "values")
    job = Job((str(corpus.folder),), out, (ReadText(), stage), {"values": stage.spec.to_dict()}, ShardSettings())
    clock = Clock()
    totals = run(job, Options(device=device), clock)
    if totals["failed"]:
        sys.exit(f"{totals['failed']} inputs failed")
    return Result(totals["seconds"], time.perf_counter() - clock.started, totals["encoder_busy"])


@dataclass
class Peak:
    """Watches how much memory a process and its children take."""

    pid: int
    device: str
    memory: int = 0
    gpu_memory: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        import psutil

        before = self._on_gpu()
        while not self._ended.wait(0.2):
            taken = 0
            try:
                process = psutil.Process(self.pid)
                for one in [process, *process.children(recursive=True)]:
                    taken += one.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # one of them has just ended
            self.memory = max(self.memory, taken)
            self.gpu_memory = max(self.gpu_memory, self._on_gpu() - before)

    def end(self) -> None:
        self._ended.set()

    def _on_gpu(self) -> int:
        if self.device == "cpu":
            return 0
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return int(subprocess.check_output([*command, "-i", self.device.partition(":")[2] or "0"])) * 2**20


def _contend(contender: Callable[..., Result], pipe: Any) -> None:
    pipe.send(contender())


def measure(contender: Callable[..., Result], device: str) -> Result:
    """Runs a contender in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_contend, args=(contender, sender))
    process.start()
    sender.close()
    assert process.pid
    peak = Peak(process.pid, device)
    watcher = threading.Thread(target=peak.watch)
    watcher.start()
    try:
        result = receiver.recv()
    except EOFError:
        sys.exit("a contender has died: see above")
    finally:
        peak.end()
        watcher.join()
        process.join()
    return Result(result.audio, result.seconds, result.busy, peak.memory, peak.gpu_memory)


def report(name: str, results: list[Result]) -> float:
    """Prints a contender's medians; gives its rate."""
    rate = median(result.rate for result in results)
    memory = max(result.memory for result in results) / 2**30
    gpu_memory = max(result.gpu_memory for result in results) / 2**30
    busy = [result.busy for result in results if result.busy is not None]
    cells = f"{rate:12.2f}{memory:13.1f} GiB{gpu_memory:9.1f} GiB"
    print(f"{name:28}{cells}{f'{median(busy):13.1%}' if busy else ''}", flush=True)
    return rate


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", choices=list(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--files", type=int, default=12, help="of different lengths, two or more")
    parser.add_argument("--minutes", type=float, default=1.5, help="audio for each encoder")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of audioprep's encoders")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the script out; exits 0")
    options = parser.parse_args(arguments)
    given = dict(pair.split("=", 1) for pair in options.set)
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = make_corpus(folder / "corpus", options.files, options.minutes)
        print(f"{'':28}{'audio h / h':>12}{'memory':>17}{'on the GPU':>13}{'busy':>13}")
        for encoder in options.encoders:
            (folder / encoder).mkdir()
            settings = ENCODERS[encoder][0](folder / encoder, options.tiny)
            theirs, ours = [], []
            for turn in range(options.repeats):
                to_each = (corpus, folder / f"{encoder}-{turn}-loop", options.device)
                theirs.append(measure(partial(run_loop, encoder, settings, *to_each), options.device))
                to_each = (corpus, folder / f"{encoder}-{turn}", options.device)
                ours.append(measure(partial(run_audioprep, encoder, settings | given, *to_each), options.device))
            before = report(f"{encoder}: loop", theirs)
            ratios.append(report(f"{encoder}: audioprep", ours) / before)
            print(f"{'':8}{ratios[-1]:.2f} times as much{f'; {PUBLISHED}' if encoder == 'mimi' else ''}", flush=True)
    return int(min(ratios) < FLOORS[options.device.partition(":")[0]] and not options.tiny)


if __name__ == "__main__":
    sys.exit(main())
