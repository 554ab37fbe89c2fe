"""The report: complete in itself, safe with hostile names, readable by people and screen readers."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from findings_examples import BEGIN, example, example_summary, examples, hostile

from relaywatch.model.errors import RelaywatchError
from relaywatch.model.finding import Bridge, Finding, Topology
from relaywatch.outputs import charts
from relaywatch.outputs.html import render_report, write_report
from relaywatch.outputs.summary import HuntSummary, NotJudged

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Collects elements, their attributes and text; fails on a tag that is not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def report() -> str:
    return render_report(examples(), example_summary())


def test_same_findings_same_bytes_in_any_order(report: str, tmp_path: Path) -> None:
    write_report(examples()[::-1], example_summary(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == report.encode()


def test_the_page_loads_nothing_and_runs_nothing(report: str) -> None:
    page = Page(report)
    policy = next(
        attributes["content"]
        for tag, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert not {tag for tag, _ in page.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
    }
    for _, attributes in page.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in {"src", "srcset", "action", "xlink:href"}
        ]
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import|https?://", report)


def test_hostile_names_are_text() -> None:
    page = Page(render_report([hostile(), hostile()], example_summary()))
    assert "script" not in {tag for tag, _ in page.elements}
    assert "<script>alert(1)</script>" in page.words
    assert not set(page.words) & {"\x1b", "\x07", "\u202e"}
    assert r"\u202egnp" in page.words


def test_every_id_is_unique_and_every_reference_has_its_id(report: str) -> None:
    elements = Page(report).elements
    ids = Counter(attributes["id"] for _, attributes in elements if "id" in attributes)
    assert max(ids.values()) == 1
    links = {attributes["href"][1:] for _, attributes in elements if "href" in attributes}
    labels = {name for _, attributes in elements for name in attributes.get("aria-labelledby", "").split()}
    assert links | labels <= set(ids)


def test_figures_have_words_and_tables_have_headers(report: str) -> None:
    for figure in re.findall(r'<svg class="canvas".*?</svg>\s*(?=</div>)', report, re.DOTALL):
        root = ElementTree.fromstring(figure)  # noqa: S314 (our own output)
        assert root.get("role") == "img"
        assert (root.findtext("title") or "").strip()
        assert (root.findtext("desc") or "").strip()
    page = Page(report)
    tables = [tag for tag, _ in page.elements if tag == "table"]
    assert len(tables) == len([tag for tag, _ in page.elements if tag == "thead"])
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in page.elements if tag == "th")


def test_a_finding_answers_who_what_when_where_and_what_next(report: str) -> None:
    words = Page(report).words
    for part in (
        "1 relay, 1 suspected, 1 sanctioned",
        "In 38 min 4 s this app carried 214 sessions through 1 gateway to 21 destinations",
        "198.51.100[.]23:443",
        "The 60 strongest of 214 bridges; 154 left out.",
        "Permitted by exception EX-12 of network team",
        "What could not be seen",
        "Ask the device's user when and from where the app was installed.",
        "RecentUserInteractionWindow",
        "x-mitre-analytic--cb78ff0f-6f8a-41a8-a199-4660a0addec9",
        "eve.json , line 7",
    ):
        assert part in words


def test_other_sides_names_are_defanged(report: str) -> None:
    words = Page(report).words
    assert not re.search(r"(?<!com\.)(?<!\[)\bexample\.(com|net|org)\b", words)
    assert "203.0.113.4" not in words


def test_first_steps_are_defanged_and_break_anywhere() -> None:
    plain = example(Topology.BACK_CONNECT)
    path = "cases/" + "unbroken_" * 40 + ".csv"
    steps = [f"Keep {path}.", "Block 198.51.100.71:8081 (super.node.example)."]
    page = render_report(
        [plain.model_copy(update={"response": plain.response.model_copy(update={"contain": steps})})], HuntSummary()
    )
    assert "Block 198.51.100[.]71:8081 (super.node[.]example)." in Page(page).words
    assert re.search(r"\.cols li[^{]*\{[^}]*overflow-wrap: anywhere", page)
    assert path in page


def test_a_suspected_relay_says_why_and_apps_that_no_source_names_are_unknown(report: str) -> None:
    assert "Why only suspected: the evidence together gives less than 95 %." in Page(report).words
    assert "On 2 devices, apps unknown." in Page(render_report([], HuntSummary(devices=2))).words


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_out_of_bounds_does_not_break_the_page(number: float) -> None:
    plain = example(Topology.TUNNEL)
    evidence = [item.model_copy(update={"value": number, "log_likelihood_ratio": number}) for item in plain.evidence]
    assert "Easy Earn" in _finding_page(plain.model_copy(update={"evidence": evidence, "score": number}))


def test_an_empty_hunt_does_not_say_clean() -> None:
    words = Page(
        render_report([], HuntSummary(apps=9, devices=2, not_judged=[NotJudged("d", "a", "no byte counts")]))
    ).words
    assert "No relay was observed" in words
    assert "not proof of absence: 1 app could not be judged" in words


def test_a_finding_without_legs_bytes_or_gaps_still_makes_a_page() -> None:
    bare = example(Topology.TUNNEL).model_copy(
        update={
            name: []
            for name in (
                "client_legs",
                "target_legs",
                "bridge_list",
                "balance",
                "evidence",
                "context",
                "destinations",
                "gateways",
                "not_observable",
                "settings",
                "sources",
            )
        }
    )
    assert "Easy Earn" in Page(render_report([bare], HuntSummary())).words


def test_apps_not_judged_are_counted_beyond_those_that_are_listed() -> None:
    summary = HuntSummary(apps=9, devices=2, not_judged=[NotJudged("d", "a", "no bytes")], not_judged_in_all=7)
    words = Page(render_report([], summary)).words
    assert "7 apps could not be judged" in words
    assert "The first 1 of 7." in words


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RelaywatchError, match=re.escape(str(tmp_path))):
        write_report([], HuntSummary(), tmp_path)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_contrast_meets_wcag_aa(report: str, scheme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", report, re.DOTALL)[scheme]
    colour = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))
    for ground in ("page", "card", "sunk"):
        assert all(_contrast(colour[name], colour[ground]) >= 4.5 for name in ("ink", "soft", "link"))
    for verdict in ("relay", "suspected", "sanctioned", "insufficient"):
        assert _contrast(colour["badge"], colour[verdict]) >= 4.5
    assert all(_contrast(colour[name], colour["card"]) >= 3 for name in ("client", "target", "for", "against"))


@pytest.mark.parametrize("topology", list(Topology))
def test_bars_lie_within_the_figure_and_bridges_join_their_legs(topology: Topology) -> None:
    figure = charts.timeline(example(topology, sessions=90))
    assert figure
    assert figure.drawn == charts.DRAWN_LEGS
    assert figure.left_out == 30
    for bar in (*figure.client_bars, *figure.target_bars):
        assert 0 <= bar.x <= bar.x + bar.width <= charts.WIDTH + 3
        assert 0 <= bar.y <= figure.height
    starts = {bar.x for bar in figure.target_bars}
    for curve in figure.curves:
        numbers = [float(number) for number in re.findall(r"[\d.]+", curve.path)]
        assert numbers[-2] in starts
        assert any(bar.x - 0.1 <= numbers[0] <= bar.x + bar.width + 0.1 for bar in figure.client_bars)
        assert numbers[1] <= figure.client_bottom < figure.target_top <= numbers[-1]


def test_a_tunnel_stands_as_one_lane_above_a_lane_per_destination() -> None:
    figure = charts.timeline(example(Topology.TUNNEL, sessions=214))
    assert figure
    assert [lane.label for lane in figure.client_lanes] == ["edge7.gateway[.]example"]
    assert 5 < len(figure.target_lanes) <= 14


def test_stronger_bridges_are_drawn_stronger() -> None:
    figure = charts.timeline(example(Topology.ACCEPTED))
    assert figure
    strengths = [curve.strength for curve in figure.curves]
    assert strengths == sorted(strengths)
    assert (strengths[0], strengths[-1]) == (0, 1)


def test_a_leg_whose_end_was_not_seen_runs_to_the_edge() -> None:
    plain = example(Topology.ACCEPTED, sessions=3)
    legs = [leg.model_copy(update={"end": None}) for leg in plain.target_legs]
    figure = charts.timeline(plain.model_copy(update={"target_legs": legs}))
    assert figure
    assert all(not bar.closed and bar.x + bar.width == pytest.approx(charts.WIDTH, abs=3) for bar in figure.target_bars)


def test_bridges_to_legs_that_are_not_listed_are_not_drawn() -> None:
    stray = Bridge(client=0, target=99, lag_s=0, upstream_ratio=1, downstream_ratio=1, log_likelihood_ratio=1)
    assert charts.timeline(example(Topology.ACCEPTED, sessions=2).model_copy(update={"bridge_list": [stray]})) is None


@pytest.mark.parametrize(
    "span", [timedelta(milliseconds=400), timedelta(minutes=3), timedelta(days=5), timedelta(days=4000)]
)
def test_the_time_axis_has_a_few_marks_at_any_length(span: timedelta) -> None:
    plain = example(Topology.ACCEPTED, sessions=1)
    leg = plain.client_legs[0].model_copy(update={"start": BEGIN, "end": BEGIN + span})
    figure = charts.timeline(plain.model_copy(update={"client_legs": [leg]}))
    assert figure
    assert 1 <= len(figure.ticks) <= 7


def test_no_bytes_are_lost_when_intervals_are_merged() -> None:
    plain = example(Topology.TUNNEL)
    point = plain.balance[0]
    many = [
        point.model_copy(update={"time": BEGIN + timedelta(minutes=number), "client_in": 1000})
        for number in range(5000)
    ]
    figure = charts.balance(plain.model_copy(update={"balance": many}))
    assert figure
    assert figure.upstream.came_label == "5.00 MB from clients"
    assert figure.upstream.came.count("M") <= charts.DRAWN_INTERVALS


def _finding_page(finding: Finding) -> str:
    return Page(render_report([finding], HuntSummary())).words


def test_destinations_beyond_the_table_are_named_below_it() -> None:
    assert re.search(r"And 11 more: .*maps\[\.\]example", _finding_page(example(Topology.TUNNEL, sessions=214)))


def test_a_page_is_bounded_and_says_what_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaywatch.outputs.html.SHOWN_FINDINGS", 2)
    page = render_report(examples(), HuntSummary())
    assert "1 further finding in the NDJSON only" in Page(page).words
    assert page.count("<article") == 2
