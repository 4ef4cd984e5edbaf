"""`audioprep import-tokens`: tokens that another tool has made, as a column of a shard set."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pydantic import Field, PositiveInt

from audioprep.commands.base import Console, Summary
from audioprep.commands.encoding import RunSettings, check_column, plan_encoders, run_encoders
from audioprep.encoders.base import EncoderSpec
from audioprep.errors import UsageError, nearest
from audioprep.stages.imported import ImportTokens

# Sample rate, channels, samples a frame, codebooks, codebook size.
CODECS = {
    "heartcodec": (24_000, 2, 1920, 8, 8192),
    "dac-16khz": (16_000, 1, 320, 12, 1024),
    "dac-24khz": (24_000, 1, 320, 32, 1024),
    "dac-44khz": (44_100, 1, 512, 9, 1024),
    "encodec-24khz": (24_000, 1, 320, 32, 1024),
    "encodec-32khz": (32_000, 1, 640, 4, 2048),
    "mimi": (24_000, 1, 1920, 32, 2048),
}


class Settings(RunSettings):
    """Settings of `audioprep import-tokens`."""

    source: list[str] = Field(min_length=1, description="The recordings: files, folders, manifests.")
    codec: str = Field(description=f"What made the tokens: {', '.join(CODECS)}.")
    tokens: str = Field("{folder}/{stem}.npy", description="Where a recording's tokens are.")
    num_codebooks: PositiveInt | None = Field(None, description="Codebooks that the files have. Default: all.")
    column: str = Field("audio_tokens", description="Column for the tokens.")


def run(settings: Settings, console: Console) -> Summary:
    """Imports what is not yet imported; see `run_encoders`. Recordings without good tokens are failure rows."""
    return run_encoders(settings, [_Choice(settings)], console)


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    return plan_encoders(settings, [_Choice(settings)], console)


@dataclass(frozen=True, slots=True)
class _Choice:
    settings: Settings

    def stage(self, device: str) -> ImportTokens:
        """
        Raises:
            UsageError: no such codec, or a pattern or a column that cannot be.
        """
        codec, tokens = self.settings.codec, self.settings.tokens
        if codec not in CODECS:
            raise UsageError(f"no codec is called {codec}.{nearest(codec, CODECS)} Known: {', '.join(CODECS)}.")
        if "{stem}" not in tokens:
            raise UsageError(f"--tokens {tokens}: say with {{stem}} where a recording's name comes in")
        if not tokens.startswith("{folder}"):  # a later run, from elsewhere, finds the same files
            tokens = os.path.abspath(os.path.expanduser(tokens))
        rate, channels, hop, codebooks, size = CODECS[codec]
        spec = EncoderSpec(
            name=codec,
            kind="tokens",
            sample_rate=rate,
            channels=channels,
            hop_length=hop,
            window=hop * 1000,
            left_context=0,
            right_context=0,
            batch_size=1,
            fingerprint="unknown",
            num_codebooks=self.settings.num_codebooks or codebooks,
            codebook_size=size,
            settings={"imported": True},
        )
        return ImportTokens(tokens, spec, check_column(self.settings.column))
