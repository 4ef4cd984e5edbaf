"""How well HeartCodec's tokens keep a recording: other weights of its encoder, or other codecs, side by side.

| column | what |
| --- | --- |
| log-mel | mean absolute difference of log10 mel spectra of recording and decoded tokens (128 bands, windows of 2048) |
| STFT | the same of magnitudes, over windows of 512, 1024 and 2048 (Yamamoto et al. 2020, arXiv 1910.11480) |
| usage | share of all codebooks' codes that occur; the more audio, the higher |
| perplexity | exp of the entropy of the first codebook's codes |
| softer, 32 kHz, 10 ms | share of tokens that stay what they are when the recording is 3 dB softer, went through |
| | 32 kHz and back, or begins 10 ms later; in brackets that of the first codebook |

Run: `python bench/heartcodec_quality.py [FILE…] [--encoder heartcodec] [--encoder heartcodec,weights=org/name@revision]
[--seconds 60] [--device cuda]`. Without files: bundled music. Without `--encoder`: heartcodec, whose weights are
downloaded at its first use. Any encoder that decodes will do: `--encoder mel-rvq`.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from audioprep.audio import load_audio
from audioprep.encoders.base import Decoder
from audioprep.encoders.registry import load_encoder
from audioprep.samples import sample_folder
from audioprep.stages.encode import encode_samples

Samples = NDArray[np.float32]
FLOOR = 1e-5  # of magnitudes: -100 dB


def _resampled(samples: Samples, rate: int) -> Samples:
    there = soxr.resample(samples.T, rate, 32_000)
    return soxr.resample(there, 32_000, rate).T[:, : samples.shape[1]].astype(np.float32)


CHANGES: dict[str, Callable[[Samples, int], Samples]] = {
    "softer": lambda samples, rate: samples * np.float32(10 ** (-3 / 20)),
    "32 kHz": _resampled,
    "10 ms": lambda samples, rate: np.pad(samples, ((0, 0), (rate // 100, 0)))[:, : samples.shape[1]],
}


def magnitudes(samples: Samples, window: int) -> Tensor:
    """`[C, T]` to `[C, window / 2 + 1, F]`."""
    shape = torch.hann_window(window)
    return torch.stft(torch.from_numpy(samples), window, window // 4, window=shape, return_complex=True).abs()


def log_distance(one: Tensor, other: Tensor) -> float:
    return float((one.clamp(min=FLOOR).log10() - other.clamp(min=FLOOR).log10()).abs().mean())


def distances(original: Samples, decoded: Samples, rate: int) -> dict[str, float]:
    mel = melscale_fbanks(1025, 0.0, rate / 2, 128, rate)
    bands = [torch.einsum("cft,fm->cmt", magnitudes(sound, 2048) ** 2, mel) for sound in (original, decoded)]
    scales = [
        log_distance(*(magnitudes(sound, window) for sound in (original, decoded))) for window in (512, 1024, 2048)
    ]
    return {"log-mel": log_distance(*bands), "STFT": float(np.mean(scales))}


def assess(codec: Any, files: list[Path], seconds: float) -> dict[str, str]:
    """The table's row of one codec."""
    spec = codec.spec
    found: dict[str, list[float]] = defaultdict(list)
    first: dict[str, list[float]] = defaultdict(list)
    counts = np.zeros((spec.num_codebooks, spec.codebook_size))
    for file in files:
        samples, rate = load_audio(file, sample_rate=spec.sample_rate, channels=spec.channels)
        samples = np.ascontiguousarray(samples[:, : int(seconds * rate)])
        tokens = encode_samples(codec, samples)
        np.add.at(counts, (np.arange(spec.num_codebooks), tokens), 1)
        decoded = codec.decode(tokens)
        original, _ = load_audio(file, sample_rate=codec.decoded_rate, channels=len(decoded))
        length = min(decoded.shape[1], original.shape[1])
        for name, distance in distances(original[:, :length], decoded[:, :length], codec.decoded_rate).items():
            found[name].append(distance)
        for name, change in CHANGES.items():
            same = encode_samples(codec, np.ascontiguousarray(change(samples, rate))) == tokens
            found[name].append(float(same.mean()))
            first[name].append(float(same[:, 0].mean()))
    share = counts[0] / counts[0].sum()
    row = {name: f"{np.mean(found[name]):.3f}" for name in ("log-mel", "STFT")}
    row["usage"] = f"{(counts > 0).mean():.1%}"
    row["perplexity"] = f"{np.exp(-(share[share > 0] * np.log(share[share > 0])).sum()):.1f}"
    return row | {name: f"{np.mean(found[name]):.1%} ({np.mean(first[name]):.1%})" for name in CHANGES}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--encoder", action="append", metavar="NAME[,SETTING=VALUE…]", help="can be repeated")
    parser.add_argument("--seconds", type=float, default=60, help="of each file")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    files = options.files or sorted((sample_folder() / "music").glob("*.flac"))
    for number, encoder in enumerate(options.encoder or ["heartcodec"]):
        name, *settings = encoder.split(",")
        codec = load_encoder(name, dict(pair.split("=", 1) for pair in settings) | {"device": options.device})
        if not isinstance(codec, Decoder) or codec.spec.kind != "tokens":
            sys.exit(f"{encoder}: gives no tokens that it can decode")
        row = assess(codec, files, options.seconds)
        if number == 0:
            print(f"{'':40}" + "".join(f"{column:>18}" for column in row))
        print(f"{encoder[:39]:40}" + "".join(f"{cell:>18}" for cell in row.values()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
