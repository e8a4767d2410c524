"""The reader study: readers and model on the same films, by every protocol."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cxr_jax.pages import html, reader_figures, tables
from cxr_jax.pages.evidence import Evidence

Block = Mapping[str, Any]

TITLE = "Readers"
MAJORITY = (
    "Each reader against the majority of the others; the model against the majority of each"
    " group that leaves one reader out, {readers} times (the protocol of CheXNet's first"
    " version, 3 of 4 readers, and of MURA, 5 of 6). Its figures are means of the"
    " groupings."
)
EACH_OTHER = (
    "Each reader against each of the other labels, the model's among them, and the model"
    " against each reader; then the mean (the protocol of the third version of the CheXNet"
    " paper, whose figure is F1)."
)
# Heading of each protocol, and what it does.
PROTOCOLS = {
    "majority": ("Against the majority of the other readers", MAJORITY),
    "each_other": ("Against each other label", EACH_OTHER),
    "truth": (
        "Against the true state",
        "Each reader and the model against what is known to be in the film.",
    ),
    "panel": (
        "Against the majority of a panel",
        (
            "Some of the readers ({gold}) form the reference; the others and the model are"
            " measured against their majority (the protocol of MURA's later version, with"
            " three, whose figure is Cohen's κ)."
        ),
    ),
}
# Protocols that rank.
AREAS = (("majority", "truth"), ("panel",))  # a table each
TIES = {
    "negative": "a positive needs a strict majority, so an even vote is negative",
    "positive": "an even vote is positive",
    "left_out": "films with an even vote are left out",
}
BIAS = (
    "The majority of the other readers is a biased truth. Readers who err independently"
    " with sensitivity .70 and specificity .95 measure a sensitivity of .60 at a prevalence"
    " of 5% and of .43 at 1.28%: on a rare finding most positive votes are common errors. A"
    " model measured against it is held to those errors; readers who are misled together"
    " are not."
)
CURVE = (
    "The average of reader points lies under a concave ROC even when each reader is on it."
    " The pooled-probit curve does not have this fault: it averages the readers after the"
    " probit transform (common d', slope 1; Macmillan and Kaplan 1985)."
)


def section(evidence: Evidence) -> str:
    """The section of the report; empty where no reader study was asked for."""
    block = evidence.main.get("readers")
    if not block:
        return ""
    if not block["protocols"]:
        return html.section(
            TITLE, html.paragraph(f"No reader study: {block['reason']}.")
        )
    noun = "studies" if "studies" in evidence.main else "films"
    about = [html.paragraph(text) for text in (*_about(block, noun), _headline(block))]
    parts = [*about, *_drawings(block)]
    if len(parts) > len(about):
        parts += [html.paragraph(CURVE, kind="note"), _areas(block)]
    for name, (title, what) in PROTOCOLS.items():
        if name not in block["protocols"]:
            continue
        parts.append(html.heading(title, level=3))
        gold = ", ".join(block["protocols"][name].get("gold", ()))
        told = what.format(readers=len(block["readers"]), gold=gold)
        if lost := block["protocols"][name].get("without_majority"):
            told += (
                f" On {lost:,} of the cases read it has no majority, for want of calls or"
                " by an even vote that is left out; they take no part."
            )
        parts.append(html.paragraph(told))
        if name == "majority":
            parts += [html.paragraph(BIAS), _bias(block)]
        parts += _protocol(block, name)
    return html.section(TITLE, *parts, _single_readers(block), _agreement(block))


def _about(block: Block, noun: str) -> list[str]:
    threshold = block["threshold"]["name"]
    chosen = (
        f"the operating point '{threshold}', frozen on the validation part"
        if isinstance(threshold, str)
        else f"a threshold of {threshold:g}"
    )
    films = (
        f"{block['films']:,} {noun} of {block['patients']:,} patients,"
        f"{'' if block['missing_pairs'] else ' each'} read by"
        f" {len(block['readers'])} readers ({', '.join(block['readers'])}) as"
        f" {block['file']} says. The model's scores become calls by {chosen}."
    )
    intervals = (
        f"Intervals: 95%, percentile bootstrap, {block['resamples']:,} resamples,"
        f" resampling unit: {block['resampling_unit']}. Resampling cases alone speaks for"
        " these readers; resampling cases and readers, for readers like them. Each"
        " verdict is of one class and figure, not adjusted for their number."
    )
    lines = [films, intervals]
    if block["margin"]:
        lines.append(
            f"Margin of non-inferiority, named beforehand: {block['margin']:g}."
        )
    said = []
    if "majority" in block["protocols"]:
        said.append(f"Votes: {TIES[block['tie']]}; at least {block['least']} voters.")
    if block["missing_pairs"]:
        said.append(
            f"{block['missing_pairs']:,} calls are missing on"
            f" {block['films_with_missing']:,} {noun}: where enough are present they"
            " vote, and each reader is measured on what it read."
        )
    if block["films_elsewhere"]:
        said.append(
            f"{block['films_elsewhere']:,} more {noun} that were read are of other"
            " parts."
        )
    said += [f"Left out: {name}, {why}." for name, why in block["left_out"].items()]
    reasons = block["threshold"]["reasons"]
    said += [
        f"{tables.words(n)}: no calls of the model ({w})." for n, w in reasons.items()
    ]
    return [*lines, " ".join(said)] if said else lines


def _headline(block: Block) -> str:
    """The class in focus in words, by the protocol whose figure is F1 if there is one."""
    protocols = block["protocols"]
    name = "each_other" if "each_other" in protocols else next(iter(protocols))
    found = protocols[name]["per_class"][block["focus"]]["f1"]
    title = PROTOCOLS[name][0]
    what = f"{tables.words(block['focus'])}, F1 {title[0].lower()}{title[1:]}: "
    if found["difference"]["value"] is None:
        return what + "undefined."
    return (
        f"{what}readers' average {tables.interval(found['average'])}, model"
        f" {tables.interval(found['model'])}. For these readers:"
        f" {found['difference']['verdict']}. For readers like them:"
        f" {found['difference']['verdict_readers']}."
    )


def _drawings(block: Block) -> list[str]:
    focus = tables.words(block["focus"])
    names = [name for name in reader_figures.AGAINST if name in block["protocols"]]
    if not names:
        return []
    parts = [
        html.figure(
            reader_figures.roc_in_full(block),
            f"{focus}: the model's ROC with each reader (orange) and their average"
            " (green). As Figure 2 of the CheXNet paper.",
            alt=f"ROC of the model and points of the readers, {focus}",
        )
    ]
    for name in names:
        against = reader_figures.AGAINST[name]
        pooled = "AUROC, groupings pooled" if name == "majority" else "AUROC"
        parts.append(
            html.figure(
                reader_figures.roc_panels(block, name),
                f"All classes, {against}: {pooled}, at the lower right.",
                alt=f"ROC of the model and points of the readers, {against}",
            )
        )
    return parts


def _areas(block: Block) -> str:
    """Both readings of one AUROC, and the reader curve, by each protocol that ranks."""
    shown = [[n for n in names if n in block["protocols"]] for names in AREAS]
    return "".join(_areas_of(block, names) for names in shown if names)


def _areas_of(block: Block, names: Sequence[str]) -> str:
    columns: list[tuple[str, Callable[[str], str]]] = []
    for name in names:
        per_class = block["protocols"][name]["per_class"]
        rocs = {n: found["roc"] for n, found in per_class.items()}

        def cell(label: str, key: str, rocs: Mapping[str, Block] = rocs) -> str:
            return tables.interval(rocs[label][key])

        groups = len(block["protocols"][name]["references"])
        if groups > 1:
            columns.append((f"Model, {name}\npooled", lambda n, c=cell: c(n, "pooled")))
            columns.append(
                (f"Model, {name}\nmean of {groups}", lambda n, c=cell: c(n, "mean"))
            )
        else:
            columns.append((f"Model,\n{name}", lambda n, c=cell: c(n, "mean")))
        columns.append(
            (f"Reader curve,\n{name}", lambda n, c=cell: c(n, "reader_area"))
        )
    return _table(
        block,
        columns,
        caption="Area under the ROC of the model, pooled over the groupings and as their"
        " mean; area under the pooled-probit reader curve.",
    )


def _protocol(block: Block, name: str) -> list[str]:
    per_class = block["protocols"][name]["per_class"]

    def column(metric: str, kind: str) -> Callable[[str], str]:
        return lambda label: tables.or_dash(per_class[label][metric][kind])

    parts = []
    if name != "each_other":
        pairs = [
            (f"{metric}\n{who}", column(metric.lower(), kind))
            for metric in ("Sensitivity", "Specificity")
            for who, kind in (("readers' average", "average"), ("model", "model"))
        ]
        caption = "Intervals over cases."
        parts.append(_table(block, pairs, protocol=name, caption=caption))
    for metric, title in (("f1", "F1"), ("kappa", "Cohen's κ")):
        gap = {n: found[metric]["difference"] for n, found in per_class.items()}
        columns = [
            (f"{title}, readers'\naverage", column(metric, "average")),
            (f"{title},\nmodel", column(metric, "model")),
            ("Difference,\ncases", lambda n, gap=gap: tables.signed(gap[n])),
            (
                "Difference,\ncases and readers",
                lambda n, gap=gap: tables.signed(gap[n], "_readers"),
            ),
            ("Verdict", lambda n, gap=gap: _verdict(gap[n])),
        ]
        if metric == "f1":
            always = ("Calling all,\nF1", lambda n: _always(per_class[n]))
            columns.insert(2, always)
        parts.append(_table(block, columns, protocol=name, text=(len(columns),)))
    return parts


def _always(found: Block) -> str:
    """F1 of calling every case, ``2 P / (n + P)``: the mean over the references."""
    # Without a positive it is 0, as the metric has it: all calls are false ones.
    counts = [c for c in found["references"].values() if c["n"]]
    if not counts:
        return "–"
    shares = [2 * c["positives"] / (c["n"] + c["positives"]) for c in counts]
    return tables.number(sum(shares) / len(shares))


def _bias(block: Block) -> str:
    if not block["bias"]:
        return ""

    def column(metric: str, key: str) -> Callable[[str], str]:
        return lambda label: tables.number(block["bias"][label][metric][key])

    columns: list[tuple[str, Callable[[str], str]]] = [
        ("Prevalence", lambda n: f"{100 * block['bias'][n]['prevalence']:.1f}%")
    ]
    for metric in ("Sensitivity", "Specificity"):
        columns += [
            (f"{metric}\ntrue", column(metric.lower(), "truth")),
            ("expected against\nthe majority", column(metric.lower(), "expected")),
            ("measured against\nthe majority", column(metric.lower(), "measured")),
        ]
    return _table(
        block,
        columns,
        caption="The bias, as these readers show it (their average). Expected: of"
        " independent readers with the true figures; errors that readers share raise"
        " what is measured.",
    )


def _single_readers(block: Block) -> str:
    """Each reader of the class in focus, by every protocol."""
    rows = []
    for name in (name for name in PROTOCOLS if name in block["protocols"]):
        found = block["protocols"][name]["per_class"][block["focus"]]
        against = name.replace("_", " ")
        metrics = ["sensitivity", "specificity", "f1", "kappa"]
        for reader in found["f1"]["readers"]:
            cells = [tables.or_dash(found[m]["readers"][reader]) for m in metrics]
            rows.append([reader, against, *cells])
        for who, kind in (("average", "average"), ("model", "model")):
            rows.append(
                [who, against, *(tables.or_dash(found[m][kind]) for m in metrics)]
            )
    head = ["", "Protocol", "Sensitivity", "Specificity", "F1", "Cohen's κ"]
    focus = tables.words(block["focus"])
    return html.heading(f"Each reader, {focus}", level=3) + html.table(
        head, rows, text=(1,), caption="Intervals over cases."
    )


def _agreement(block: Block) -> str:
    cells = [("Fleiss' κ", lambda n: tables.or_dash(block["fleiss"][n]))]
    return html.heading("Agreement among the readers", level=3) + _table(
        block,
        cells,
        caption="1: they always agree; 0: no more than by chance. Interval over cases.",
    )


def _table(
    block: Block,
    columns: Sequence[tuple[str, Callable[[str], str]]],
    *,
    caption: str = "",
    protocol: str = "",
    text: Sequence[int] = (),
) -> str:
    """One row per class; classes with too few positive patients are marked."""
    found = block["protocols"].get(protocol, {}).get("per_class", {})
    flags = {n: found[n]["flag"] for n in found if found[n]["flag"]}
    rows = [
        [
            tables.words(n) + (" *" if n in flags else ""),
            *(cell(n) for _, cell in columns),
        ]
        for n in block["classes"]
    ]
    if flags:
        caption += f" * {next(iter(flags.values()))} by at least one reference."
    head = ["Class", *(name for name, _ in columns)]
    return html.table(head, rows, caption=caption.strip(), text=text)


def _verdict(gap: Block) -> str:
    """The verdicts without their intervals, which stand beside them; once if they agree."""
    if gap["value"] is None:
        return "–"
    cut = [gap[key].partition(" (interval") for key in ("verdict", "verdict_readers")]
    these, like = (before + after.partition(")")[2] for before, _, after in cut)
    return these if these == like else f"{these}; readers like them: {like}"
