"""`audioprep tokenize`: audio of any format to token shards."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt

from audioprep.commands.base import Console, Summary
from audioprep.commands.encoding import EncoderChoice, RunSettings, plan_encoders, run_encoders


class Settings(RunSettings):
    """Settings of `audioprep tokenize`."""

    source: list[str] = Field(min_length=1, description="Files, folders, manifests, saved data sets.")
    codec: str = Field("mel-rvq", description="Name of the encoder.")
    weights: str | None = Field(None, description="A file, a folder or a repository of the Hub. Default: its own.")
    num_codebooks: PositiveInt | None = Field(None, description="Use only the first so many codebooks.")
    codec_settings: dict[str, Any] = Field({}, description="The encoder's own settings.")
    column: str | None = Field(None, description="Column for the tokens. Default: by codec, mostly audio_tokens.")


def run(settings: Settings, console: Console) -> Summary:
    """Tokenizes what is not yet tokenized; see `run_encoders`."""
    return run_encoders(settings, [_choice(settings)], console)


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    return plan_encoders(settings, [_choice(settings)], console)


def _choice(settings: Settings) -> EncoderChoice:
    codebooks = {} if settings.num_codebooks is None else {"num_codebooks": settings.num_codebooks}
    return EncoderChoice(
        encoder=settings.codec,
        weights=settings.weights,
        column=settings.column,
        settings=settings.codec_settings | codebooks,
    )
