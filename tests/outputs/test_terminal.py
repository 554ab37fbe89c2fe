"""The terminal: what a responder reads, at 80 columns, piped, and with names that want out."""

from __future__ import annotations

import io
import math

import pytest
from findings_examples import example, example_summary, examples, hostile
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from relaywatch.attack.requirements import log_sources_for
from relaywatch.detection import verdict as verdict_module
from relaywatch.model.finding import (
    App,
    ContextFact,
    Destination,
    Evidence,
    Finding,
    NotObservable,
    SettingUse,
    Topology,
    Verdict,
)
from relaywatch.model.quarantine import Quarantine
from relaywatch.outputs import text as text_module
from relaywatch.outputs.summary import HuntSummary, NotJudged
from relaywatch.outputs.terminal import render
from relaywatch.outputs.text import (
    context_line,
    defang,
    duration,
    factor,
    percent,
    printable,
    size,
    step,
    why_suspected,
)


def shown(findings: list[Finding], summary: HuntSummary, *, width: int = 80, colour: bool = False) -> str:
    stream = io.StringIO()
    render(
        findings,
        summary,
        Console(file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None),
    )
    return stream.getvalue()


def test_the_headline_counts_every_verdict() -> None:
    line = shown(examples(), example_summary()).splitlines()[0]
    assert line == "1 relay, 1 suspected, 1 sanctioned, 0 insufficient  in 61 apps on 4 devices"


def test_gravest_first_whatever_the_order_given() -> None:
    text = shown(examples()[::-1], example_summary())
    assert text == shown(examples(), example_summary())
    assert text.index("RELAY  99.9 %") < text.index("SUSPECTED RELAY") < text.index("SANCTIONED RELAY")


def test_a_panel_says_who_carried_what_where_and_what_to_do() -> None:
    text = " ".join(shown([example(Topology.ACCEPTED, sessions=31)], example_summary()).replace("│", " ").split())
    for part in (
        "File Cast (com.example.filecast)",
        "a54-0117 (group field)",
        "m.okafor",
        "clients connect to the device on port 1080",
        "2026-03-03 14:03:11 to 14:28:13 UTC, 25 min 2 s",
        "238 kB out, 8.23 MB in",
        "192.0.2[.]140",
        "12 destinations in 12 networks, up to 9 at one time",
        "example[.]com",
        "×18,770 31 target legs start within 0.2 s",
        "listener: The listener cannot be tied",
        "Keep the source files",
    ):
        assert part in text


def test_no_address_or_name_of_the_other_side_is_left_clickable() -> None:
    text = shown(examples(), example_summary())
    assert "example.com" not in text.replace("com.example", "")
    assert "198.51.100.23" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, shown([*examples(), hostile()], example_summary(), width=width).splitlines())) <= width


def test_piped_output_has_no_colour_codes() -> None:
    assert "\x1b" not in shown([*examples(), hostile()], example_summary())


def test_hostile_names_are_shown_but_neither_styled_nor_obeyed() -> None:
    text = shown([hostile()], example_summary(), width=200, colour=True)
    assert "[red]x[/red]" in text
    assert "\\x1b]0;owned\\x07" in text
    assert not set(text) & {"\x07", "\u202e"}
    assert "\x1b]" not in text


@pytest.mark.parametrize(("lateral", "said"), [(True, True), (False, False), (None, True)])
def test_reaching_into_a_private_network_from_outside_is_said_first(*, lateral: bool | None, said: bool) -> None:
    plain = example(Topology.TUNNEL)
    told = {} if lateral is None else {"lateral": lateral}  # findings of before 1.1 say private and no more
    inside = Destination(
        name="192.168.1.0/24",
        hostnames=[],
        addresses=["192.168.1.4"],
        ports=[445],
        bridges=1,
        bytes_in=1,
        bytes_out=1,
        private=True,
        **told,
    )
    text = shown(
        [plain.model_copy(update={"destinations": [*plain.destinations, inside]})], example_summary(), width=110
    )
    line = " ".join(text.replace("│", " ").split())
    assert ("192.168.1[.]0/24 (inside a private network), example[.]com" in line) is said
    assert ("a client from outside reached 1 private destination: lateral movement" in line) is said


def test_an_expired_exception_is_said() -> None:
    finding = example(Topology.ACCEPTED, verdict=Verdict.SANCTIONED_RELAY)
    assert finding.exception
    expired = finding.exception.model_copy(update={"active": False})
    assert "EX-12 of network team, EXPIRED 2026-09-30" in shown(
        [finding.model_copy(update={"exception": expired})], example_summary()
    )


def test_a_panel_names_the_finding_and_the_command_that_explains_it() -> None:
    finding = example(Topology.TUNNEL).model_copy(update={"finding_id": "7ef4e5aa0123456789"})
    assert "7ef4e5aa  (relaywatch explain 7ef4e5aa)" in shown([finding], example_summary())


def test_where_no_source_names_apps_their_number_is_unknown_and_not_zero() -> None:
    line = shown([], HuntSummary(devices=2)).splitlines()[0]
    assert line.endswith("on 2 devices, apps unknown")
    assert shown([], HuntSummary()).splitlines()[0].endswith("in 0 apps on 0 devices")


def test_context_says_once_which_sessions_it_is_about() -> None:
    facts = [
        ContextFact(
            name="a", value=0.03, unit="", statement=f"3% of the bridged sessions {state}", observability="observed"
        )
        for state in ("began while the app was on screen", "began with the screen on")
    ]
    unseen = ContextFact(name="keyguard locked", value=None, unit="", statement="?", observability="not_observable")
    line = context_line(example(Topology.TUNNEL).model_copy(update={"context": [*facts, unseen]}))
    assert line == (
        "of the bridged sessions 3% began while the app was on screen, 3% began with the screen on; "
        "not observable: keyguard locked"
    )


def _suspected(
    *, sessions: float = 9, ratio: float = 20.0, bar: float = 11.513, spread: float = 0.5, gaps: tuple[str, ...] = ()
) -> Finding:
    def item(kind: str, name: str, log_ratio: float, value: float | None = None) -> Evidence:
        return Evidence(kind=kind, name=name, statement="", value=value, log_likelihood_ratio=log_ratio)

    def setting(name: str, value: str) -> SettingUse:
        return SettingUse(name=name, value=value, default=value, origin="default", attack=True)

    return example(Topology.TUNNEL, verdict=Verdict.SUSPECTED_RELAY).model_copy(
        update={
            "probability": 0.999,
            "evidence": [
                item("tunnelling", "link mirrors targets", ratio, sessions),
                item("spread", "unrelated destinations", spread, 4.0),
            ],
            "evidence_bar": bar,
            "settings": [setting("RelaySessionThreshold", "4"), setting("FalseAlarmsPerAppDay", "1e-05")],
            "not_observable": [NotObservable(field=gap, reason="", cost="", remedy="") for gap in gaps],
        }
    )


@pytest.mark.parametrize(
    ("finding", "why"),
    [
        (_suspected(gaps=("app", "bytes")), "no app identity"),
        (_suspected(gaps=("bytes",)), "bytes are estimated or missing"),
        (_suspected(spread=-2.0), "the evidence rests on one destination"),
        (_suspected(sessions=3), "3 sessions, fewer than RelaySessionThreshold (4)"),
        (_suspected(ratio=9.0, bar=11.5), "evidence +9.00 is below the bar +11.50 (FalseAlarmsPerAppDay)"),
        (
            _suspected(ratio=14.0, bar=17.0),
            "evidence +14.00 is below the bar +17.00 (FalseDiscoveryRate over all apps hunted)",
        ),
        (_suspected(sessions=3, gaps=("app",)), "no app identity; 3 sessions, fewer than RelaySessionThreshold (4)"),
        (_suspected().model_copy(update={"probability": 0.7}), "the evidence together gives less than 95 %"),
        (_suspected(), "too few sessions within ByteSymmetryTolerance"),
    ],
)
def test_a_suspected_relay_says_why_it_is_not_called_a_relay(finding: Finding, why: str) -> None:
    assert why_suspected(finding) == why
    assert "why suspected" in shown([finding], example_summary())
    assert why_suspected(finding.model_copy(update={"verdict": Verdict.RELAY})) == ""


def test_the_bounds_of_a_suspicion_are_those_of_detection() -> None:
    assert text_module.RELAY_PROBABILITY == verdict_module.RELAY_PROBABILITY
    assert {name for name in text_module.CORE_EVIDENCE if log_sources_for(name)} == text_module.CORE_EVIDENCE


def test_a_first_step_is_defanged_as_everything_else() -> None:
    finding = example(Topology.BACK_CONNECT)
    given = "Block 198.51.100.71:8081 (super.node.example), not 198.51.100.7 or /logs/x198.51.100.71."
    assert step(given, finding) == (
        "Block 198.51.100[.]71:8081 (super.node[.]example), not 198.51.100.7 or /logs/x198.51.100.71."
    )


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, 1e308])
def test_a_number_out_of_bounds_does_not_break_a_panel(number: float) -> None:
    plain = example(Topology.TUNNEL)
    evidence = [item.model_copy(update={"value": number, "log_likelihood_ratio": number}) for item in plain.evidence]
    assert "Easy Earn" in shown([plain.model_copy(update={"evidence": evidence, "score": number})], example_summary())
    assert "Easy Earn" in shown([_suspected(sessions=number, ratio=number)], example_summary())


def test_what_was_read_put_aside_and_not_judged_is_said() -> None:
    text = shown([], example_summary())
    assert "0 relays" in text
    assert "edge/conn.log" in text
    assert "31,040" in text
    assert "eve.json, line 7: not JSON" in text
    assert "notes.docx" in text
    assert "com.example.mail on a54-0117: no byte counts" in text
    assert "not the same as clean" in text


def test_long_lists_are_cut_and_counted() -> None:
    quarantine = Quarantine()
    for line in range(5000):
        quarantine.add("x.log", f"line {line}", "bad")
    unjudged = [NotJudged("d", f"app{number}", "no bytes") for number in range(300)]
    text = shown([], HuntSummary(quarantine=quarantine, not_judged=unjudged))
    assert "4,990 more" in text
    assert "290 more" in text
    assert "890 more" in shown([], HuntSummary(not_judged=unjudged, not_judged_in_all=900))
    assert len(text.splitlines()) < 40


def test_an_app_that_no_source_names_is_shown_by_uid() -> None:
    finding = example(Topology.TUNNEL).model_copy(update={"app": App(uid=10_044)})
    assert "uid 10044" in shown([finding], example_summary())


@given(st.text(max_size=700))
def test_printable_text_is_one_bounded_line_without_controls(text: str) -> None:
    result = printable(text, limit=100)
    assert len(result) <= 100
    assert result.replace("\u00a0", " ").isprintable() or all(ch.isprintable() or ch.isspace() for ch in result)
    assert not set(result) & set("\x1b\n\r\t\x07\u202e\u2066\u200b\u2028\ud800")


def test_plain_text_is_left_alone() -> None:
    assert printable("Bäckerei 東京 com.example.app") == "Bäckerei 東京 com.example.app"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("www.example.com", "www.example[.]com"),
        ("1.2.3.4", "1.2.3[.]4"),
        ("203.0.113.0/24", "203.0.113[.]0/24"),
        ("2001:db8::1", "2001:db8:[:]1"),
        ("localhost", "localhost"),
    ],
)
def test_defanged(name: str, safe: str) -> None:
    assert defang(name) == safe


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (999.6, "1.00 kB"), (84_123_456, "84.1 MB"), (2.5e15, "2500 TB")]
)
def test_sizes_carry_three_digits(count: float, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("chance", "words"),
    [(0, "0 %"), (0.5, "50 %"), (0.9945, "99.5 %"), (0.99999, "> 99.9 %"), (0.0004, "< 0.1 %"), (1, "100 %")],
)
def test_a_probability_is_never_rounded_to_certainty(chance: float, words: str) -> None:
    assert percent(chance) == words


def test_extreme_ratios_and_spans_have_words() -> None:
    from datetime import timedelta

    assert factor(5000) == "×1.0e+304"
    assert factor(-5000) == "×9.9e-305"
    assert duration(timedelta(days=3, hours=2, minutes=1)) == "3 d 2 h"
    assert duration(timedelta(seconds=-4)) == "0.0 s"
