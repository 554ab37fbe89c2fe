"""What kept findings promise: the same findings as were given, in order, however often they are asked for."""

from __future__ import annotations

from findings_examples import examples, hostile
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.outputs.kept import KeptFindings
from relaywatch.outputs.native import json_line

FINDINGS = [*examples(), hostile()]


@given(st.lists(st.integers(0, len(FINDINGS) - 1), max_size=6))
def test_they_come_back_whole_and_in_order(which):
    found = [FINDINGS[place].model_copy(update={"bridges": number}) for number, place in enumerate(which)]
    ordered = sorted(found, key=lambda finding: -finding.bridges)
    kept = KeptFindings(found, key=lambda finding: -finding.bridges)
    assert len(kept) == len(ordered)
    assert kept == ordered
    assert list(kept) == list(kept) == ordered
    assert kept[1:] == ordered[1:]
    assert list(kept.lines()) == [json_line(finding) for finding in ordered]
