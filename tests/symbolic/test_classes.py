from __future__ import annotations

import numpy as np
import pytest

from audioprep.symbolic.classes import token_classes
from audioprep.symbolic.miditok_files import load, new_tokenizer
from audioprep.symbolic.tokenizers import load_tokenizer
from audioprep.symbolic.vocabulary import CLASSES, KEY_CLASS, full_vocabulary


def test_classes_of_emopias_words() -> None:
    options = (("beats", "score"), ("chords", "auto"), ("key", "score"), ("meter", "keep"))
    classes = token_classes(load_tokenizer("emopia-cp", options, "").spec.to_dict(), "")
    assert [one.name for one in classes] == [*CLASSES, KEY_CLASS]
    assert [one.column for one in classes] == list(range(9))
    vocabulary = full_vocabulary(True)
    tempos = classes[0]
    assert tempos.values[:2] == ("32", "35") and tempos.values[-1] == "224"  # by number, not by letter
    assert vocabulary["tempo"][tempos.ids[-1]] == "Tempo_224"
    assert "CONTI" not in tempos.values and "0" not in classes[4].values[1:]
    for one in classes:
        assert len(one.ids) == len(one.values) == len(set(one.ids.tolist()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["remi", "cp"])
def test_every_id_of_miditok_is_in_one_class(name: str) -> None:
    saved = new_tokenizer(name, {})
    tokenizer = load(saved)
    spec = load_tokenizer("miditok", (("meter", "keep"),), saved).spec.to_dict()
    classes = token_classes(spec, saved)
    for column, size in enumerate(spec["vocabulary_sizes"]):
        ids = np.concatenate([one.ids for one in classes if one.column == column])
        assert sorted(ids.tolist()) == list(range(size))
    pitches = next(one for one in classes if one.name == "Pitch")
    vocabulary = tokenizer.vocab[pitches.column] if tokenizer.is_multi_voc else tokenizer.vocab
    assert [vocabulary[f"Pitch_{value}"] for value in pitches.values] == pitches.ids.tolist()
