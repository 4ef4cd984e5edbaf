"""`audioprep encode`: latents, embeddings or tokens of audio, also as new columns of a shard set that is there."""

from __future__ import annotations

from pydantic import Field

from audioprep.commands.base import Console, Summary
from audioprep.commands.encoding import EncoderChoice, RunSettings, plan_encoders, run_encoders


class Settings(RunSettings):
    """Settings of `audioprep encode`."""

    encoders: list[EncoderChoice] = Field(min_length=1, description="They share what they can of the decoding.")


def run(settings: Settings, console: Console) -> Summary:
    """Encodes what is not yet encoded; see `run_encoders`."""
    return run_encoders(settings, settings.encoders, console)


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    return plan_encoders(settings, settings.encoders, console)
