"""The report as a page: what a real browser shows, plays and loads of it."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from audio_helpers import correlation, ffmpeg, write_wav
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from test_report_media import heard, tone

from audioprep.dedup.alignment import Alignment
from audioprep.dedup.groups import Recording
from audioprep.dedup.report import write_report
from audioprep.dedup.report_charts import group_sizes, similarity_histogram
from audioprep.dedup.report_media import RATE
from audioprep.dedup.report_pairs import ReportPair
from audioprep.samples import sample_folder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
HOSTILE = '<img src=x onerror="hit=1">'
SUMMARY: dict[str, Any] = {
    "dataset_dirs": ["/music</title><script>hit=1</script>"],
    "against": [],
    "processed_files": 12_345,
    "duplicate_files": 3,
    "encoder": {"encoder": "mel-rvq"},
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs: one aligned, one that is not dropped, a hostile name, and one whose files are broken or gone."""
    tmp_path = tmp_path_factory.mktemp("report")
    song = sample_folder() / "music" / "bach_prelude_c.mp3"
    hostile, broken = tmp_path / f"{HOSTILE}.wav", tmp_path / "broken.wav"
    # It begins 2 s later and runs 4 % faster.
    ffmpeg("-ss", "2", "-i", song, "-af", "atempo=1.04", tmp_path / "fast.wav")
    ffmpeg("-i", song, "-t", "3", hostile)
    broken.write_bytes(b"RIFF")

    def recording(path: Path, seconds: float, size: int = 0) -> Recording:
        return Recording(path.name, str(path), seconds, size)

    whole = recording(song, 15.5, song.stat().st_size)
    fast = Alignment(2.0, 12.0, 0.97, 1.04, -0.5)
    pairs = [
        ReportPair(whole, recording(tmp_path / "fast.wav", 12.96), 0.951, "near-duplicate", fast),
        ReportPair(whole, recording(hostile, 3.0), 0.94, "near-duplicate", dropped=False),
        ReportPair(recording(hostile, 3.0), recording(tmp_path / "<script>hit=1</script>.wav", 3.0), 0.96, "excerpt"),
        ReportPair(recording(broken, 3.0), recording(tmp_path / "gone.wav", 3.0), 1.0, "exact-copy"),
    ]
    path = tmp_path / "out" / "report.html"
    done: list[tuple[int, int]] = []
    write_report(
        path, pairs, np.array([0.94, 0.951, 0.96]), [2, 3], 0.95, "cosine of histograms", SUMMARY,
        lambda *counts: done.append(counts),
    )  # fmt: skip
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is neither chromium nor google-chrome on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report in a browser; at the end it is checked that nothing but the file and what is in it was asked for."""
    asked: list[str] = []
    errors: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(report.as_uri())
    yield page
    page.close()
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert errors == []


def clips(card: Locator) -> list[dict[str, Any]]:
    found = "players => players.map(({currentTime, duration, paused}) => ({at: currentTime, duration, paused}))"
    return card.locator("audio").evaluate_all(found)


def sounding(card: Locator, place: int, after: float) -> list[dict[str, Any]]:
    """Waits until one of the card's two players, and it alone, has come past a time."""
    card.page.wait_for_function(
        """([place, players, after]) => players.every((player, number) => player.paused === (number !== place))
           && players[place].currentTime > after""",
        arg=[place, card.locator("audio").element_handles(), after],
    )
    return clips(card)


def test_reads_filters_and_sorts(page: Page):
    expect(page.locator("h1")).to_have_text(f"Near-duplicates in {SUMMARY['dataset_dirs'][0]}")
    expect(page.locator(".counts")).to_have_text("12,345recordings3dropped")
    expect(page.locator("svg rect.stay")).to_have_count(1)
    expect(page.locator("svg rect.drop")).to_have_count(2)
    pairs = page.locator(".pair")
    values = pairs.locator("h3")
    expect(values).to_have_text(["0.9510", "0.9400", "0.9600", "1.0000"])
    expect(pairs.nth(0).locator(".facts")).to_have_text(
        "offset +2.00 s · overlap 12.0 s · agreement 0.970 · speed × 1.040 · pitch -0.50 semitones"
    )
    expect(pairs.nth(0).locator(".role")).to_have_text(["A · kept", "B · dropped"])
    expect(pairs.nth(1).locator(".role")).to_have_text(["A · kept", "B · kept, too"])
    pictures = page.locator("img").evaluate_all("all => all.map(one => [one.naturalWidth, one.naturalHeight])")
    assert pictures == [[400, 96], [385, 96], [100, 96], [100, 96], [100, 96]]

    # Names are text, whatever they hold; what is gone or broken has a note, and cannot be switched to.
    expect(pairs.nth(1).locator("bdi").nth(2)).to_have_text(f"{HOSTILE}.wav")
    expect(pairs.nth(2).locator(".note")).to_contain_text("there is no such file")
    expect(pairs.nth(3).locator(".note")).to_have_count(2)
    expect(page.get_by_role("button", name="Switch A/B")).to_have_count(2)
    assert page.evaluate("typeof hit") == "undefined"

    page.locator("[name=sort]").select_option("up")
    expect(values).to_have_text(["0.9400", "0.9510", "0.9600", "1.0000"])
    page.locator("[name=sort]").select_option("down")
    page.locator("[name=from]").fill("0.945")
    expect(values.filter(visible=True)).to_have_text(["1.0000", "0.9600", "0.9510"])
    page.locator("[name=to]").fill("0.99")
    expect(page.locator("#shown")).to_have_text("Pairs: 2 of 4")
    page.locator("[name=relation]").select_option("near-duplicate")
    expect(values.filter(visible=True)).to_have_text(["0.9510"])


def test_plays_a_pair_from_the_same_moment(page: Page):
    card = page.locator(".pair").nth(0)
    switch, turns = card.locator("[name=change]"), card.locator("[name=turns]")
    card.evaluate("""card => {
        window.begun = [];
        const times = () => [...card.querySelectorAll("audio")].map((player) => player.currentTime);
        card.addEventListener("play", () => begun.push(times()), true);
    }""")
    switch.click()
    keep, _ = sounding(card, 0, 0.5)
    assert keep["duration"] == pytest.approx(12, abs=0.05)
    switch.click()
    _, drop = sounding(card, 1, 0.7)
    assert drop["duration"] == pytest.approx(12 / 1.04, abs=0.05)
    # A click into the picture plays from there.
    picture = card.locator(".picture").nth(0)
    picture.click(position={"x": picture.bounding_box()["width"] * 0.6, "y": 5})  # pyright: ignore[reportOptionalSubscript]
    sounding(card, 0, 7.2)
    # In turn: the other one at once, and after two seconds this one again.
    turns.click()
    sounding(card, 1, 7.2 / 1.04)
    sounding(card, 0, 8.7)
    (first, _), *switches = page.evaluate("begun")
    assert first == 0 and len(switches) == 4
    for keep, drop in (switches[0], *switches[2:]):
        assert drop * 1.04 == pytest.approx(keep, abs=0.3)
    # Another pair silences this one.
    page.locator(".pair").nth(1).locator("[name=change]").click()
    sounding(page.locator(".pair").nth(1), 0, 0)
    assert all(clip["paused"] for clip in clips(card))
    expect(turns).to_have_attribute("aria-pressed", "false")


def test_the_policy_lets_nothing_out_and_no_other_script_in(browser: Browser, report: Path):
    page = browser.new_page()
    page.goto(report.as_uri())
    blocked = page.evaluate("""async () => {
        const blocked = [];
        document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
        document.body.insertAdjacentHTML("beforeend", '<img src="http://127.0.0.1:9/"><b onclick="hit=1">x</b>');
        document.body.append(Object.assign(document.createElement("script"), { text: "hit = 1" }));
        await fetch("http://127.0.0.1:9/").catch(() => null);
        await new Promise((done) => setTimeout(done, 100));
        return [blocked.sort(), typeof hit];
    }""")
    page.close()
    assert blocked == [["connect-src", "img-src", "script-src-attr", "script-src-elem"], "undefined"]


class Links(HTMLParser):
    """What a page's attributes lead to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        leading = ("src", "srcset", "href", "action", "formaction", "data", "poster", "ping", "background")
        self.found += [(tag, value or "") for name, value in attrs if name in leading]


def test_the_page_holds_no_outside_link(report: Path):
    page = report.read_text()
    assert Counter((tag, target[:5]) for tag, target in Links(page).found) == {
        ("img", "data:"): 5,
        ("audio", "data:"): 5,
    }
    assert not re.search(r"://|url\(|@import", page)
    assert report.stat().st_size < 5 * 130_000


@pytest.mark.parametrize(("offset", "speed"), [(2.0, 1.0), (-2.0, 1.0), (0.0, 1.05), (3.0, 0.96)])
def test_clips_begin_at_the_same_moment(tmp_path: Path, offset: float, speed: float):
    """Low tones, whose waveform Opus keeps; the dropped recording begins elsewhere and runs at another speed."""
    kept = np.concatenate([tone(frequency, 0.5) for frequency in np.random.default_rng(0).integers(150, 800, 40)])
    before = np.zeros(round(max(-offset, 0) * RATE), np.float32)
    dropped = soxr.resample(np.concatenate([before, kept[round(max(offset, 0) * RATE) :]]), RATE * speed, RATE)

    def recording(name: str, samples: np.ndarray) -> Recording:
        path = write_wav(tmp_path / f"{name}.wav", samples[None], RATE)
        return Recording(name, str(path), samples.shape[0] / RATE, 0)

    aligned = Alignment(offset, 20 - max(offset, 0), 0.99, speed)
    path = tmp_path / "report.html"
    pair = ReportPair(recording("kept", kept), recording("dropped", dropped), 0.96, "near-duplicate", aligned)
    write_report(path, [pair], np.ones(1), [2], 0.95, "", {}, lambda *_: None)
    one, other = (heard(target, tmp_path)[0] for tag, target in Links(path.read_text()).found if tag == "audio")
    assert (len(one), len(other)) == (12 * RATE, pytest.approx(12 * RATE / speed, abs=1))
    assert correlation(one[None], soxr.resample(other, RATE, RATE * speed)[None]) > 0.95


def test_the_histogram_has_every_pair_and_a_bar_begins_at_the_threshold():
    values = np.concatenate([np.linspace(0.9, 0.95, 1000, endpoint=False), np.full(7, 0.95), np.full(3, 1.04)])
    chart = similarity_histogram(values, 0.95)
    bars = re.findall(r'<rect class="(\w+)".*?<title>([\d.]+) to ([\d.]+): ([\d,]+) pairs', chart)
    counts = {side: sum(int(count) for name, *_, count in bars if name == side) for side in ("stay", "drop")}
    assert counts == {"stay": 1000, "drop": 10}
    assert ("drop", "0.9500") in [(side, left) for side, left, *_ in bars]
    for nothing in (similarity_histogram(np.empty(0), 0.95), similarity_histogram(np.ones(1), 1.0)):
        assert "threshold" in nothing and "nan" not in nothing


def test_sizes_of_groups():
    rows = re.findall(r"<th>(.*?)</th>.*?<td>(\d+)</td>", group_sizes([2, 2, 2, 3, 4, 5, 8, 9, 16, 17, 500]))
    assert rows == [("2", "3"), ("3", "1"), ("4", "1"), ("5 to 8", "2"), ("9 to 16", "2"), ("17 to 32", "1"),
                    ("257 to 512", "1")]  # fmt: skip
    assert "no groups" in group_sizes([])
