"""The music of the bundled samples, all of it in the public domain.

Bach's two chorales are read from music21's corpus, of which nothing but pitches and lengths is used. The
other pieces are written out in music21's tinyNotation: `c4` is middle C as a quarter note, `c'` the octave
above, `C` and `CC` those below, `c'#8.` a dotted eighth; a length holds until the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from music21 import converter, corpus
from music21.stream import Part as Stream
from music21.stream import Score


class Part(NamedTuple):
    """One voice: its notes, its timbre (`synth.TIMBRES`), its place (0 left, 1 right) and its loudness."""

    notes: Stream
    timbre: str
    pan: float
    gain: float


@dataclass(frozen=True)
class Piece:
    """One file of music. `tempo` is in quarter notes a minute; notes from `beats` on are left out;
    `drums` is one letter a sixteenth (`synth.drum`), a dot for none."""

    path: str
    title: str
    composer: str
    tags: str
    tempo: float
    parts: list[Part]
    beats: float = 1e9
    drums: str = ""
    lyrics: str = ""
    source: str = ""


def part(notes: str, timbre: str, pan: float = 0.5, gain: float = 1.0) -> Part:
    """A voice written in tinyNotation."""
    parsed = converter.parse(f"tinynotation: 4/4 {notes}")
    assert isinstance(parsed, Stream)
    return Part(parsed.stripTies(), timbre, pan, gain)


def chorale(name: str, timbre: str) -> list[Part]:
    """The four voices of a Bach chorale, the soprano on the left."""
    score = corpus.parse(f"bach/{name}")
    assert isinstance(score, Score)
    places = ((0.3, 1.1), (0.45, 0.8), (0.6, 0.8), (0.7, 0.9))
    return [Part(voice, timbre, pan, gain) for voice, (pan, gain) in zip(score.parts, places, strict=True)]


def broken_chords(*bars: str) -> str:
    """Bars of five notes, each broken as in Bach's prelude: 1 2 3 4 5 3 4 5, twice."""
    order = (0, 1, 2, 3, 4, 2, 3, 4) * 2
    return " ".join(f"{bar.split()[i]}16" for bar in bars for i in order)


def lute_bass(roots: str) -> str:
    """Root, fifth and octave in eighths, for half a bar of 6/8 each."""
    chords = {"A": "AA8 E A", "G": "GG8 D G", "E": "EE8 BB E", "C": "C8 G c"}
    return " ".join(chords[root] for root in roots)


GREENSLEEVES_1 = "a8 c'4 d'8 e'8. f'#16 e'8 d'4 b8 g8. a16 b8 c'4 a8 a8. g#16 a8 b4 g#8 e4 "
GREENSLEEVES_2 = "a8 c'4 d'8 e'8. f'#16 e'8 d'4 b8 g8. a16 b8 c'8. b16 a8 g#8. f#16 g#8 a4. a4. "
GREENSLEEVES_3 = "g'4. g'8. f'#16 e'8 d'4 b8 g8. a16 b8 c'4 a8 a8. g#16 a8 b4 g#8 e4. "
GREENSLEEVES_4 = "g'4. g'8. f'#16 e'8 d'4 b8 g8. a16 b8 c'8. b16 a8 g#8. f#16 g#8 a2."
PRELUDE = broken_chords("c e g c' e'", "c d a d' f'", "B d g d' f'", "c e g c' e'")
CANON_1, CANON_2 = "f'#4 e' d' c'# b a b c'# ", "d'4 c'# b a g f# g e "
CANON_3 = "d'8 f'# a' g' f'# d' f'# e' d' b d' a g b a g "
FRERE_JACQUES = "c4 d e c c d e c e f g2 e4 f g2 g8 a g f e4 c g8 a g f e4 c c4 G c2 c4 G c2 "
SAILOR = "a8 a16 a a8 a16 a a8 d f a g8 g16 g g8 g16 g g8 c e g "
SAILOR_VERSE = SAILOR + "a8 a16 a a8 a16 a a8 b c' d' c' a g e d4 d "
SAILOR_CHORUS = "a4 a8 a a d f a g4 g8 g g c e g a4 a8 a a b c' d' c' a g e d4 d"

PIECES = [
    Piece(
        path="music/bach_chorale_bwv269.flac",
        title="Aus meines Herzens Grunde",
        composer="Johann Sebastian Bach",
        tags="organ,baroque,chorale,solemn",
        tempo=92,
        beats=21,
        parts=chorale("bwv269", "organ"),
        source="BWV 269, the notes from music21's corpus",
    ),
    Piece(
        path="music/bach_chorale_bwv66.ogg",
        title="Christ ist erstanden",
        composer="Johann Sebastian Bach",
        tags="piano,baroque,chorale,calm",
        tempo=126,
        parts=chorale("bwv66.6", "piano"),
        source="BWV 66.6, the notes from music21's corpus",
    ),
    Piece(
        path="music/bach_prelude_c.mp3",
        title="Prelude in C major",
        composer="Johann Sebastian Bach",
        tags="piano,baroque,calm,arpeggio",
        tempo=84,
        parts=[
            part(
                broken_chords("c e g c' e'", "c d a d' f'", "B d g d' f'", "c e g c' e'") + " c'2",
                "piano",
                0.6,
            ),
            part("c1 c B c C", "piano", 0.3, 0.8),
        ],
    ),
    Piece(
        path="music/ode_to_joy.wav",
        title="Ode to Joy",
        composer="Ludwig van Beethoven",
        tags="flute,classical,bright",
        tempo=160,
        parts=[
            part("e4 e f g g f e d c c d e e4. d8 d2 e4 e f g g f e d c c d e d4. c8 c2", "flute"),
            part("C4 G e G C G e G C G e G GG D B D C G e G C G e G C G e G GG D C2", "pluck", gain=0.7),
        ],
        lyrics="[Verse]\nFreude, schöner Götterfunken,\nTochter aus Elysium,\n"
        "Wir betreten feuertrunken,\nHimmlische, dein Heiligtum!\n",
        source="Symphony No. 9, 1824; text by Friedrich Schiller, 1785",
    ),
    Piece(
        path="music/pachelbel_canon.m4a",
        title="Canon in D",
        composer="Johann Pachelbel",
        tags="flute,organ,baroque,canon",
        tempo=108,
        parts=[
            part(CANON_1 + CANON_2 + CANON_3 + "f#2", "flute", 0.2),
            part("r1 r " + CANON_1 + CANON_2 + "d2", "flute", 0.8, 0.8),
            part("D4 AA BB FF# GG DD GG AA " * 3 + "D2", "organ", gain=0.8),
        ],
    ),
    Piece(
        path="music/traditional/auld_lang_syne.opus",
        title="Auld Lang Syne",
        composer="Traditional",
        tags="flute,piano,folk,scottish,nostalgic",
        tempo=116,
        parts=[
            part(
                "d4 g4. g8 g4 b a4. g8 a4 b g4. g8 b4 d' e'2. e'4 d'4. b8 b4 g a4. g8 a4 b g4. e8 e4 d g2.",
                "flute",
            ),
            part("r4 GG2 G D A GG B C c GG B D A C D GG2.", "piano", gain=0.9),
            part("r4 B1 c B c B c e2 c B2.", "piano", gain=0.6),
        ],
        lyrics="[Verse]\nShould auld acquaintance be forgot,\nAnd never brought to mind?\n"
        "Should auld acquaintance be forgot,\nAnd auld lang syne?\n",
        source="Scottish traditional; text by Robert Burns, 1788",
    ),
    Piece(
        path="music/traditional/drunken_sailor.mp3",
        title="Drunken Sailor",
        composer="Traditional",
        tags="banjo,drums,folk,sea shanty,lively",
        tempo=126,
        parts=[
            part(SAILOR_VERSE + SAILOR_CHORUS, "pluck", gain=1.1),
            part("DD4 D DD D CC C CC C DD D DD D CC C DD D " * 2, "pluck", gain=0.9),
            part("r1 r r r " + "f1 e f e2 d", "organ", gain=0.35),
        ],
        drums="K.h.S.h.K.K.S.hh" * 8,
        lyrics="[Verse]\n"
        + "What shall we do with the drunken sailor,\n" * 3
        + "Early in the morning?\n\n[Chorus]\n"
        + "Way, hay, and up she rises,\n" * 3
        + "Early in the morning!\n",
    ),
    Piece(
        path="music/traditional/Frère Jacques.m4a",
        title="Frère Jacques",
        composer="Traditional",
        tags="piano,flute,children,round",
        tempo=150,
        parts=[
            part(FRERE_JACQUES, "piano", 0.25),
            part("r1 r " + FRERE_JACQUES, "flute", 0.75, 0.7),
        ],
        lyrics="[Verse]\nFrère Jacques, frère Jacques,\nDormez-vous ? Dormez-vous ?\n"
        "Sonnez les matines ! Sonnez les matines !\nDing, dang, dong. Ding, dang, dong.\n",
    ),
    Piece(
        path="music/traditional/greensleeves.opus",
        title="Greensleeves",
        composer="Traditional",
        tags="lute,renaissance,folk,melancholic",
        tempo=156,
        parts=[
            part(GREENSLEEVES_1 + GREENSLEEVES_2 + GREENSLEEVES_3 + GREENSLEEVES_4, "pluck", 0.35, 1.2),
            part("r8 " + lute_bass("AAGGAAEEAAGGAEAACCGGAAEECCGGAEAA"), "pluck", 0.65, 0.7),
        ],
        lyrics="[Verse]\nAlas, my love, you do me wrong,\nTo cast me off discourteously,\n"
        "For I have loved you well and long,\nDelighting in your company.\n\n"
        "[Chorus]\nGreensleeves was all my joy,\nGreensleeves was my delight,\n"
        "Greensleeves was my heart of gold,\nAnd who but my lady Greensleeves?\n",
        source="English traditional, about 1580",
    ),
    Piece(
        path="music/traditional/さくら.ogg",
        title="さくら さくら",
        composer="Traditional",
        tags="koto,japanese,folk,spring,calm",
        tempo=132,
        parts=[
            part("a4 a b2 a4 a b2 a4 b c' b a b8 a f2 e4 c e f e e8 c B2", "pluck", 0.4, 1.1),
            part("r1 r r r r r a4 a b2 a4 a b2 e4 f b8 a f4 e1", "pluck", 0.4, 1.1),
            part("AA2 E AA E AA E FF C AA E EE BB AA E AA E EE BB EE1", "pluck", 0.65, 0.8),
        ],
        lyrics="[Verse]\nさくら さくら\nやよいの空は\n見わたす限り\nいざや いざや\n見にゆかん\n",
        source="Japanese traditional, as printed in 1888",
    ),
]
