"""The sheet as one HTML page without scripts, fonts or pictures of its own: any browser shows and prints it,
in whatever script a name is written."""

import base64
from hashlib import sha256
from html import escape
from importlib.resources import files

from api.downtime.sheet import BLANK_LINES, NOT_RECORDED, Line, Page, Sheet

COLUMNS = (
    ("time", "Time"),
    ("patient", "Patient, date of birth"),
    ("phone", "Phone"),
    ("allergies", "Allergies"),
    ("notes", "Came? What was done"),
)
BLANK = f'<tr class="blank">{"<td></td>" * len(COLUMNS)}</tr>'


def render_html(sheet: Sheet) -> bytes:
    foot = f"{sheet.number} · {sheet.printed_at}"
    style = files(__package__).joinpath("sheet.css").read_text("utf-8").replace("FOOT", foot)
    hashed = base64.b64encode(sha256(style.encode()).digest()).decode()
    pages = "".join(section(page, is_first=number == 0) for number, page in enumerate(sheet.pages))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-{hashed}'">
<meta name="viewport" content="width=device-width">
<title>Downtime sheet, {escape(sheet.days)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{isolated(sheet.clinic)}: downtime sheet</h1>
<p>{escape(sheet.days)}. Data of {escape(sheet.source)}; printed {escape(sheet.printed_at)},
all times {escape(sheet.timezone)}. Confidential: shred it once it is entered.</p>
</header>
{pages or "<p>Nobody has an appointment.</p>"}
<footer><p>Sheet {sheet.number}</p></footer>
</body>
</html>
""".encode()


def section(page: Page, *, is_first: bool) -> str:
    heads = "".join(f'<th scope="col" class="{name}">{title}</th>' for name, title in COLUMNS)
    rows = "\n".join([*map(row, page.lines), *[BLANK] * BLANK_LINES])
    return f"""<section{' class="first"' if is_first else ""}>
<h2>{escape(page.day)}: {isolated(page.doctor)}</h2>
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</section>
"""


def row(line: Line) -> str:
    allergies = f"<b>{isolated(line.allergies)}</b>" if line.allergies else f"<i>{NOT_RECORDED}</i>"
    cells = {
        "time": escape(line.time),
        "patient": f"<b>{isolated(line.patient)}</b>{escape(line.born)}",
        "phone": isolated(line.phone),
        "allergies": allergies,
        "notes": "",
    }
    return "<tr>" + "".join(f'<td class="{name}">{cell}</td>' for name, cell in cells.items()) + "</tr>"


def isolated(text: str) -> str:
    """Text whose own direction, from the right or the left, disturbs nothing around it."""
    return f'<bdi dir="auto">{escape(text)}</bdi>'
