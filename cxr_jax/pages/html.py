"""Pieces of a self-contained HTML page: nothing on it comes from a network."""

import base64
import re
from collections.abc import Container, Sequence
from html import escape

_STYLE = """
:root { --ink:#1f2933; --faint:#616e7c; --line:#e1e6ea; --blue:#1d6996; }
* { box-sizing: border-box; }
body { margin:0; background:#f4f6f8; color:var(--ink); line-height:1.5;
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif; }
main { max-width:1000px; margin:0 auto; padding:28px 36px 60px; background:#fff; }
header p { margin:2px 0; color:var(--faint); max-width:none; }
h1 { font-size:27px; line-height:1.2; margin:0 0 8px; letter-spacing:-.01em; }
h2 { font-size:19px; margin:44px 0 10px; padding-top:14px;
  border-top:1px solid var(--line); }
h3 { font-size:15px; margin:22px 0 6px; }
p, li { max-width:76ch; }
.contents { font-size:13px; line-height:1.9; margin:18px 0 0; }
.contents a { color:var(--blue); text-decoration:none; white-space:nowrap; }
.banner { background:#fff4e5; border-left:4px solid #cc6d1e; color:#6b3a00;
  padding:8px 14px; margin:16px 0; font-weight:600; max-width:none; }
.note { color:var(--faint); font-size:13px; }
.cards { display:flex; flex-wrap:wrap; gap:14px; margin:18px 0; }
.card { flex:1 1 260px; border:1px solid var(--line); border-radius:8px;
  padding:14px 18px; }
.card .label { color:var(--faint); font-size:13px; }
.card .figure { font-size:34px; font-weight:650; line-height:1.2; color:var(--blue);
  font-variant-numeric:tabular-nums; }
.card .range { font-variant-numeric:tabular-nums; }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; font-size:13.5px; margin:10px 0; min-width:55%;
  font-variant-numeric:tabular-nums; }
caption { text-align:left; color:var(--faint); font-size:13px; padding-bottom:6px; }
th, td { padding:4px 12px 4px 0; text-align:right; white-space:nowrap;
  border-bottom:1px solid var(--line); vertical-align:top; }
th:first-child, td:first-child { text-align:left; }
th.text { text-align:left; }
td.text { text-align:left; white-space:normal; overflow-wrap:anywhere; }
td.best, tr.total td.best { font-weight:750; color:var(--blue); }
.scale { display:flex; align-items:center; gap:8px; color:var(--faint);
  font-size:12px; margin:0 0 6px; }
thead th { font-weight:600; border-bottom:1.5px solid var(--ink); vertical-align:bottom;
  white-space:pre-line; line-height:1.3; }
tr.total td { font-weight:650; border-top:1.5px solid var(--ink); border-bottom:0; }
figure { margin:14px 0; }
figure img { max-width:100%; height:auto; display:block; }
figcaption { color:var(--faint); font-size:13px; max-width:76ch; margin-top:4px; }
.films { display:grid; grid-template-columns:repeat(3,1fr); gap:6px 14px; }
.films figure { margin:4px 0 10px; }
.films figcaption { font-size:12px; line-height:1.4; overflow-wrap:anywhere;
  white-space:pre-line; }
.verdict { color:var(--ink); }
.failure { color:#b4500b; }
pre { background:#f4f6f8; padding:12px; overflow-x:auto; font-size:12px; }
summary { cursor:pointer; color:var(--blue); margin:6px 0; }
@media print { body, main { background:#fff; padding:0; } h2 { break-after:avoid; }
  figure, table { break-inside:avoid; } }
@media (max-width:700px) { main { padding:18px; } .films { grid-template-columns:1fr; } }
"""


def document(title: str, body: str) -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML.

    Returns:
        HTML that needs no other file; its policy forbids any network access.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it; empty parts are passed over."""
    content = "\n".join(part for part in parts if part)
    head = f'<h2 id="{anchor(title)}">{escape(title)}</h2>'
    return f"<section>\n{head}\n{content}\n</section>"


def anchor(title: str) -> str:
    """What a link to a section ends in."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def contents(body: str) -> str:
    """Links to the sections of a page, in their order."""
    found = re.findall(r'<h2 id="([^"]+)">([^<]*)</h2>', body)
    links = " · ".join(f'<a href="#{name}">{title}</a>' for name, title in found)
    return f'<nav class="contents">{links}</nav>' if found else ""


def heading(text: str, *, level: int) -> str:
    """A heading of plain text; ``section`` makes those of level 2, with an anchor."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph of plain text."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def card(label: str, figure: str, below: Sequence[str]) -> str:
    """One number, large."""
    lines = "".join(f'<div class="range">{escape(text)}</div>' for text in below)
    return (
        f'<div class="card"><div class="label">{escape(label)}</div>'
        f'<div class="figure">{escape(figure)}</div>{lines}</div>'
    )


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    total: bool = False,
    text: Sequence[int] = (),
    best: Container[tuple[int, int]] = (),
) -> str:
    """A table of plain text.

    Args:
        headers: line breaks are kept.
        rows: cells, as many as headers.
        caption: stands above.
        total: whether the last row is a summary of the others.
        text: columns of words, set to the left; the first always is.
        best: row and column of cells that stand out.

    Returns:
        HTML.
    """

    def cells(row: Sequence[str], tag: str, number: int = -1) -> str:
        kinds = [' class="text"' if k in text else "" for k in range(len(row))]
        kinds = [
            ' class="best"' if (number, k) in best else kind
            for k, kind in enumerate(kinds)
        ]
        return "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, row, strict=True)
        )

    body = [f"<tr>{cells(row, 'td', k)}</tr>" for k, row in enumerate(rows)]
    if total and body:
        body[-1] = body[-1].replace("<tr>", '<tr class="total">')
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{title}<thead><tr>{cells(headers, "th")}</tr>'
        f"</thead>\n<tbody>\n{chr(10).join(body)}\n</tbody></table></div>"
    )


def image(content: bytes, *, alt: str) -> str:
    """An image within the page.

    Args:
        content: SVG or PNG.
        alt: what it shows, for those who cannot see it.
    """
    return f'<img alt="{escape(alt)}" src="{data_uri(content)}">'


def scale(content: bytes, *, low: str, high: str) -> str:
    """A colour bar between its two ends."""
    bar = image(content, alt="colour scale")
    return f'<p class="scale">{escape(low)} {bar} {escape(high)}</p>'


def figure(
    content: bytes, caption: str, *, alt: str, verdict: str = "", failed: bool = False
) -> str:
    """An image with a caption of plain text below it.

    Args:
        content: SVG or PNG.
        caption: line breaks are kept.
        alt: what it shows, for those who cannot see it.
        verdict: stands ahead of the caption.
        failed: whether that is of a failure.
    """
    kind = "failure" if failed else "verdict"
    head = f'<strong class="{kind}">{escape(verdict)}</strong>\n' if verdict else ""
    below = f"<figcaption>{head}{escape(caption)}</figcaption>"
    return f"<figure>{image(content, alt=alt)}{below}</figure>"


def data_uri(content: bytes) -> str:
    """The image itself as its address. In an ``img`` an SVG cannot run scripts."""
    kind = "png" if content.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def details(summary: str, content: str) -> str:
    """Preformatted plain text, folded away."""
    return folded(summary, f"<pre>{escape(content)}</pre>")


def folded(summary: str, *parts: str) -> str:
    """Parts of a page that open on a click."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"
