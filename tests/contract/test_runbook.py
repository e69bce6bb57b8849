"""Each alert has its paragraph in the runbook, and the other way round."""

import re

import pytest
import yaml

from tests.support.documents import ROOT, headings

RUNBOOK = ROOT / "docs/runbook.md"
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


def test_every_alert_has_a_paragraph_in_the_runbook() -> None:
    assert headings(RUNBOOK)[1:] == [rule["alert"] for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_a_paragraph_says_what_it_means_what_to_look_at_and_what_to_do(rule: dict[str, object]) -> None:
    name, labels, annotations = rule["alert"], rule["labels"], rule["annotations"]
    [paragraph] = re.findall(rf"^## {name}\n\n(.*?)(?=\n## |\Z)", RUNBOOK.read_text(), re.S | re.M)
    assert isinstance(labels, dict)
    assert isinstance(annotations, dict)
    assert paragraph.startswith(f"`{labels['severity']}`. ")
    assert "\n- **Look at:** " in paragraph
    assert "\n- **Do:** " in paragraph
    assert annotations["runbook"] == f"docs/runbook.md#{str(name).lower()}"
