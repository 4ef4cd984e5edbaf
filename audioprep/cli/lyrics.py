"""The commands on texts: what models would take badly in them, and how lyrics are pronounced."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioprep.cli.execute import execute, guarded, settings_of
from audioprep.cli.options import (
    Check,
    DryRun,
    Engine,
    Exclude,
    Format,
    Json,
    Limit,
    Metrics,
    PartSize,
    Quiet,
    RetryFailed,
    ShardMb,
    ShardOf,
    Sources,
    Splits,
    TensorBoard,
    Workers,
    splits_of,
)


def lint(
    source: Sources,
    target: Annotated[
        str, typer.Option("--for", help="The model that shall read the texts: heartmula or songbloom.")
    ] = "heartmula",
    report: Annotated[Path | None, typer.Option(help="Write every finding here, a JSON object a line.")] = None,
    limit: Limit = None,
    exclude: Exclude = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find what a model would take badly in tags and lyrics. Exit code 1 where a person has to mend something.

    Example: audioprep lint ~/songs --report findings.jsonl
    """
    execute("lint", settings_of(locals()), dry_run, json, quiet)


def g2p(
    out: Annotated[str, typer.Option(help="Folder of the data set, or its URL: a new one of lyrics, or a shard set.")],
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="Files of lyrics; folders; tables with a column `lyrics`. Where --out is a shard set of recordings: "
            "as for tokenize, or none for the inputs that it has.",
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="Column for the phonemes.")] = "phonemes",
    language: Annotated[
        str, typer.Option(help="auto: of each line, by its script and commonest words; or ja, en, pt, es, zh.")
    ] = "auto",
    japanese: Annotated[
        str, typer.Option(help="phonemes, kana, or accent: phonemes with [ ] # ? for pitch and phrases.")
    ] = "phonemes",
    devoiced: Annotated[
        bool, typer.Option("--devoiced", help="Japanese vowels that speech devoices as capitals (I, U).")
    ] = False,
    english_in_japanese: Annotated[
        str, typer.Option(help="English words in Japanese lines: kana, as singers have them, or english.")
    ] = "kana",
    spanish: Annotated[str, typer.Option(help="es-419 of Latin America, or es of Spain.")] = "es-419",
    portuguese: Annotated[str, typer.Option(help="pt-br of Brazil, or pt of Portugal.")] = "pt-br",
    unicode: Annotated[str, typer.Option(help="Normal form of the characters: nfkc or nfc.")] = "nfkc",
    numbers: Annotated[str, typer.Option(help="Figures: read as numbers, digits one by one, or drop.")] = "read",
    punctuation: Annotated[str, typer.Option(help="Punctuation: pauses among the phonemes (. ,), or drop.")] = "pauses",
    inventory: Annotated[
        str, typer.Option(help="Phonemes that may come out: any, songbloom, or a file with a list of them.")
    ] = "any",
    dictionary: Annotated[
        Path | None, typer.Option(help="Your own readings: LANGUAGE, WORD and READING with tabs between them.")
    ] = None,
    layout: Annotated[str, typer.Option(help="lines as the lyrics have them, or songbloom: its sections.")] = "lines",
    seconds_per_tag: Annotated[
        int,
        typer.Option(help="What one of SongBloom's [intro] [inst] [outro] stands for: 1, or 5 for the 240 s model."),
    ] = 1,
    infer_sections: Annotated[
        bool, typer.Option("--infer-sections", help="Guess sections that nothing says; they are marked `inferred`.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Lyrics of which something cannot be read fail.")] = False,
    format: Format = "parquet",
    splits: Splits = "train=1.0",
    shard_mb: ShardMb = 512,
    engine: Engine = "local",
    workers: Workers = 0,
    device: Annotated[
        str, typer.Option(help="Of the encoders whose columns the shard set has, for new recordings.")
    ] = "cpu",
    part_size: PartSize = None,
    limit: Limit = None,
    exclude: Exclude = None,
    check: Check = "size",
    retry_failed: RetryFailed = False,
    shard_of: ShardOf = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make the column anew where its settings were others.")
    ] = False,
    metrics: Metrics = None,
    tensorboard: TensorBoard = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn lyrics into phonemes: a data set of lyrics, or a column of a shard set that is there.

    Writes COLUMN, COLUMN_languages, COLUMN_unread, and COLUMN.vocab.txt with a symbol a line.

    Example: audioprep g2p ~/lyrics --out phonemes --dictionary readings.tsv

    Example: audioprep g2p --out shards --inventory songbloom --layout songbloom
    """
    options = settings_of(locals())
    options["source"] = source or []
    options["splits"] = guarded(lambda: splits_of(splits))
    execute("g2p", options, dry_run, json, quiet)
