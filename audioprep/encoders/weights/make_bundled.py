"""Makes the bundled `mel-rvq.safetensors` anew: python audioprep/encoders/weights/make_bundled.py

It is fitted to the bundled recordings at several speeds and levels, and to noise: enough for a demo and for
trying a pipeline out. For real work, `audioprep fit mel-rvq` fits one to the user's own audio.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from audioprep.audio import AUDIO_SUFFIXES, load_audio
from audioprep.encoders.mel_grid import SAMPLE_RATE
from audioprep.encoders.mel_rvq import BUNDLED
from audioprep.encoders.mel_rvq_fit import fit_mel_rvq
from audioprep.errors import InputError
from audioprep.samples import sample_folder

_SPEEDS = (0.75, 0.87, 1.0, 1.15, 1.33)
_GAINS = (1.0, 0.4)


def training_audio() -> Iterator[NDArray[np.float32]]:
    """Blocks `[1, T]` at 24 kHz."""
    for path in sorted(p for p in sample_folder().rglob("*") if p.suffix in AUDIO_SUFFIXES):
        try:
            samples, _ = load_audio(path, sample_rate=SAMPLE_RATE, channels=1)
        except InputError as error:  # one of the samples is broken on purpose
            logging.info("left out: %s", error)
            continue
        for speed in _SPEEDS:
            varied = soxr.resample(samples[0], SAMPLE_RATE, SAMPLE_RATE / speed)[None]
            for gain in _GAINS:
                yield varied * np.float32(gain)
    noise = np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE).astype(np.float32)
    for colour in (noise, np.cumsum(noise)):
        for level in (0.3, 0.03, 0.003):
            yield colour[None] * (level / np.abs(colour).max())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    fitted = fit_mel_rvq(training_audio(), num_codebooks=4, codebook_size=256)
    fitted.save(BUNDLED)
    logging.info("%s", fitted.report)
