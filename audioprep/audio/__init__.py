"""Bytes to samples: probe, decode any format in blocks, mix down, resample. Libraries load at first use."""

from __future__ import annotations

from audioprep.audio.backends import decoders
from audioprep.audio.backends.base import AudioInfo
from audioprep.audio.formats import AUDIO_SUFFIXES
from audioprep.audio.stream import AudioStream, load_audio, open_audio, probe

__all__ = ["AUDIO_SUFFIXES", "AudioInfo", "AudioStream", "decoders", "load_audio", "open_audio", "probe"]
