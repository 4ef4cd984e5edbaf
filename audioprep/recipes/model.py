"""The form of a recipe, as pydantic models made from the commands' own settings."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

from audioprep.commands import (
    clap_score,
    dedup,
    encode,
    export_emopia,
    export_simpletuner,
    export_songbloom,
    export_stable_audio,
    fad,
    fit_mel_rvq,
    fit_midi_bpe,
    fit_muq_vq,
    g2p,
    import_tokens,
    inspect,
    jacappella,
    lint,
    listen,
    make_dummy,
    midi,
    pull,
    push,
    retry,
    tokenize,
    train,
    verify,
)

COMMANDS: dict[str, ModuleType] = {
    "clap-score": clap_score,
    "dedup": dedup,
    "encode": encode,
    "export-emopia": export_emopia,
    "export-simpletuner": export_simpletuner,
    "export-songbloom": export_songbloom,
    "export-stable-audio": export_stable_audio,
    "fad": fad,
    "fit-mel-rvq": fit_mel_rvq,
    "fit-midi-bpe": fit_midi_bpe,
    "fit-muq-vq": fit_muq_vq,
    "g2p": g2p,
    "import-tokens": import_tokens,
    "inspect": inspect,
    "jacappella": jacappella,
    "lint": lint,
    "listen": listen,
    "midi": midi,
    "make-dummy": make_dummy,
    "pull": pull,
    "push": push,
    "retry": retry,
    "tokenize": tokenize,
    "train": train,
    "verify": verify,
}


class Recipe(BaseModel):
    """A list of stages, run in order. Each can be run again: what is done is not done twice."""

    model_config = ConfigDict(extra="forbid")

    description: str = ""
    stages: list[Any] = Field(min_length=1)


@lru_cache(maxsize=1)
def recipe_model() -> type[Recipe]:
    """`Recipe` with the exact type of every stage; its JSON Schema is what editors check recipes with."""
    stages = tuple(_stage_model(name, module) for name, module in COMMANDS.items())
    # Built at run time, which type checkers cannot follow.
    stage = Annotated[Union[stages], Field(discriminator="stage")]  # noqa: UP007  # pyright: ignore
    return create_model("Recipe", __base__=Recipe, stages=(list[stage], Field(min_length=1)))  # pyright: ignore


def _stage_model(command: str, module: ModuleType) -> type[BaseModel]:
    return create_model(
        f"{command.capitalize()}Stage",
        __base__=module.Settings,
        __doc__=module.__doc__,
        stage=(Literal[command], Field(description="What to do.")),  # pyright: ignore
        name=(str, Field(command, description="What `--set NAME.key=value` calls it.")),
    )


def command_settings(stage: BaseModel) -> BaseModel:
    """The settings of a stage without what only recipes know."""
    module = COMMANDS[stage.stage]  # pyright: ignore[reportAttributeAccessIssue]
    return module.Settings(**{name: getattr(stage, name) for name in module.Settings.model_fields})
