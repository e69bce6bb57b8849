"""deploy/alerts.yml, by Prometheus's own tool (Debian: prometheus): it is read, and every alert fires."""

import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
ALERTS = HERE.parents[1] / "deploy/alerts.yml"
PROMTOOL = shutil.which("promtool") or "promtool"
CASES = HERE / "alerts.test.yml"


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_reads_the_alerts() -> None:
    assert "SUCCESS: 13 rules found" in promtool("check", "rules", ALERTS)


def test_every_alert_fires_on_what_it_is_for_and_only_then() -> None:
    promtool("test", "rules", CASES)
    names = set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    assert set(re.findall(r"- alertname: (\w+)", CASES.read_text())) == names
    assert set(re.findall(r"\{alertname: (\w+), .*exp_alerts: \[\]", CASES.read_text())) == names
