"""The section of studies: our figures as they are, and others' in tables of their own."""

import html
import html.parser
import json
import re

import numpy as np
import pytest
from sklearn import metrics

from cxr_jax import evaluate
from cxr_jax.data import groups, kinds
from cxr_jax.evaluators.by_study import ByStudy
from cxr_jax.pages import studies as page
from cxr_jax.pages.evidence import Evidence
from cxr_jax.predictions import Predictions

TYPES = ("Elbow", "Hand", "Wrist")
KINDS = ("fracture", "hardware")
OF = tuple(
    {"name": f"cxr_jax.evaluators.{name}"}
    for name in ("classification.Classification", "decision.Decision", "kinds.Kinds")
)
COUNTS = {"Elbow": (1203, 768), "Hand": (1613, 602), "Wrist": (2295, 1451)}
REPORT = {
    "published_counts": ({"name": "Paper, all <i>studies</i>", "counts": COUNTS},),
    "published_kinds": (
        {"name": "Paper, 2.3", "studies": 100, "counts": {"fracture": 53}},
    ),
    "reader_study": (
        {
            "name": "Paper, Table 2",
            "split": "209 unpublished studies",
            "metric": "f1",
            "average": {"Elbow": [0.858, 0.707, 0.959], "All": [0.884, 0.853, 0.918]},
            "model": {"Elbow": [0.848, 0.691, 0.955]},
        },
    ),
    "context": (
        {"dataset": "JSRT", "study type": "Chest", "label": "Nodule", "images": 247},
    ),
}


def films(seed: int, *, count: int = 40) -> Predictions:
    """About two films of each study; study 0 has a name that is markup."""
    rng = np.random.default_rng(seed)
    study = np.repeat(np.arange(count), rng.integers(1, 4, count))
    labels = (np.arange(count) % 2)[study][:, None].astype(np.float32)
    part = np.array(["test", "val"][seed])
    names = np.array([f"<b>{part}{k:02d}" for k in study])
    return Predictions(
        classes=("Abnormality",),
        ids=np.array([f"{name}/{k}" for k, name in enumerate(names)]),
        patients=names,
        studies=names,
        index=np.arange(len(study)),
        probs=((rng.random((len(study), 1)) + labels) / 2).astype(np.float32),
        labels=labels,
        truth=labels.copy(),
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bones")
    test, val = films(0), films(1)
    names, views = np.unique(test.studies, return_counts=True)
    mixed = test.studies == names[views > 1][0]
    test.labels[mixed] = np.arange(mixed.sum())[:, None] == 0  # one view alone
    ids = [*test.ids, *val.ids]
    number = np.array([int(name[-2:]) for name in [*test.studies, *val.studies]])
    column = np.array(TYPES)[number % 3]
    (folder / groups.NAME).write_text(groups.format_groups(ids, {"body_part": column}))
    shown = sorted(set(test.studies[test.labels[:, 0] == 1]))
    flags = [np.arange(len(shown)) % 2, np.arange(len(shown)) < 3]
    columns = dict(zip(KINDS, flags, strict=True))
    (folder / kinds.NAME).write_text(kinds.format_kinds(shown, columns))
    evaluator = ByStudy(
        of=OF, column="body_part", order=TYPES, directory=str(folder), resamples=20
    )
    return {
        part: evaluate.evaluate_table(
            table,
            dataset="phantom_bone/tiny",
            split=part,
            split_sha256="",
            checkpoint_step=1,
            weights_sha256=None,
            evaluators=(evaluator,),
        )
        for part, table in (("test", test), ("val", val))
    }


def rendered(results, report=None):
    evidence = Evidence(
        config={} if report is None else {"report": report},
        passport={},
        lines=[],
        results=results,
        curves={},
        samples=None,
    )
    return page.section(evidence)


def text_of(section):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", section)).split())


class Tables(html.parser.HTMLParser):
    """The cells of every table."""

    def __init__(self, section):
        super().__init__()
        self.found, self.cell = [], False
        self.feed(section)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.found.append([])
        if tag == "tr":
            self.found[-1].append([])
        self.cell = tag in ("td", "th")
        if self.cell:
            self.found[-1][-1].append("")

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.cell:
            self.found[-1][-1][-1] += data


def tables_of(section):
    return Tables(section).found


def rows_of(section, *words):
    """The rows of the one table whose head has these words, by their first cells."""
    tables = tables_of(section)
    found = [t for t in tables if all(w in " ".join(t[0]) for w in words)]
    assert len(found) == 1, [t[0] for t in found]
    return {row[0]: row[1:] for row in found[0][1:]}


def interval(block):
    return f"{block['value']:.3f} [{block['low']:.3f}, {block['high']:.3f}]"


def test_no_blocks_no_section(results):
    block = {k: v for k, v in results["test"].items() if k not in ("studies", "kinds")}
    assert rendered({"test": block}, REPORT) == ""
    assert rendered({"test": {"dataset": "x"}}) == ""


def test_each_type_has_its_counts_and_figures(results):
    found = results["test"]["metrics"]
    rows = rows_of(rendered(results), "Body part", "AUROC")
    assert list(rows) == [*TYPES, "All"]
    for name, row in rows.items():
        labels = found["auroc"]["per_class"][name]
        truth = found["auroc@truth"]["per_class"][name]
        assert row[:2] == [str(labels["n"]), str(labels["positives"])]
        assert row[2:4] == [interval(truth), interval(labels)]
        assert row[4].startswith(labels["flag"] or "")


def test_the_papers_rule_stands_against_the_labels_type_by_type(results):
    test = films(0)
    names, study = np.unique(test.studies, return_inverse=True)
    mean = np.bincount(study, test.probs[:, 0]) / np.bincount(study)
    number = np.array([int(name[-2:]) for name in names])
    true, called = number % 2 == 1, mean > 0.5
    true |= names == results["test"]["studies"]["disagreeing"][0]  # one view alone
    rows = rows_of(rendered(results), "Calling all")
    assert list(rows)[-1].startswith("All")
    for name, row in rows.items():
        kind = np.array([*TYPES, "All"]) == name.removesuffix(" *")
        own = kind[-1] | (number % 3 == np.flatnonzero(kind)[0])
        p, n = true[own].sum(), own.sum()
        f1 = metrics.f1_score(true[own], called[own])
        kappa = metrics.cohen_kappa_score(true[own], called[own])
        assert row[:2] == [str(n), str(p)]
        assert row[2].startswith(f"{f1:.3f} [")
        assert row[3] == f"{metrics.f1_score(true[own], np.ones(n)):.3f}"
        assert row[4].startswith(f"{kappa:.3f}".replace("-", "−"))


def test_a_figure_that_is_none_says_why(results):
    changed = json.loads(json.dumps(results["test"], default=float))
    hand = changed["decision"]["per_class"]["Hand"]
    hand["f1"] = {"value": None, "reason": "undefined: nothing was there"}
    section = rendered({"test": changed})
    rows = rows_of(section, "Calling all")
    assert next(row for name, row in rows.items() if "Hand" in name)[2] == "–"
    assert "–: undefined: nothing was there." in text_of(section)


def test_labels_that_are_the_truth_have_one_column(results):
    changed = dict(results["test"])
    same = changed["metrics"]["auroc"]
    changed["metrics"] = changed["metrics"] | {"auroc@truth": same}
    section = rendered({"test": changed})
    rows = rows_of(section, "Body part", "labels are true")
    assert rows["All"][2] == interval(same["per_class"]["All"])
    (head,) = [t[0] for t in tables_of(section) if "labels are true" in str(t[0])]
    assert not any("against" in cell for cell in head)


def test_films_stand_beside_studies(results):
    """Two rows, not a column: what is counted in them differs."""
    result = results["test"]
    rows = rows_of(rendered(results), "Judged")
    films = result["studies"]["of_films"]["auroc"]["per_class"]["Abnormality"]
    studies = result["metrics"]["auroc"]["per_class"]["All"]
    for name, block in (("All films, singly", films), ("All studies", studies)):
        row = rows[name]
        assert row[:2] == [str(block["n"]), str(block["positives"])]
        assert row[3] == interval(block)
    assert films["n"] > studies["n"]
    gain = result["studies"]["gain"]
    ends = [f"{gain[k]:+.3f}".replace("-", "−") for k in ("value", "low", "high")]
    said = text_of(rendered(results))
    assert "on the same resamples and against truth: {} [{}, {}].".format(*ends) in said


def test_it_says_how_films_became_studies(results):
    block = results["test"]["studies"]
    text = text_of(rendered(results))
    assert f"{block['films']} films of {block['n']} studies" in text
    assert block["rule"] in text and "any of its films" in text
    for views, count in block["views"].items():
        assert f"{count} of {views} view" in text
    (name,) = block["disagreeing"]
    assert f"In 1 study the views disagree in their label: {name}." in text


def test_of_many_studies_whose_views_disagree_the_first_are_named(results):
    names = [f"s{k}" for k in range(9)]
    block = results["test"]["studies"]
    for given, words in (
        (names, "In 9 studies the views disagree in their label: s0, s1, s2, s3, s4"),
        (names, "s4 and 4 more."),
        ([], "In no study do the views disagree"),
    ):
        result = results["test"] | {"studies": block | {"disagreeing": given}}
        assert words in text_of(rendered({"test": result}))


def test_names_from_files_cannot_become_markup(results):
    section = rendered(results, REPORT)
    (name,) = results["test"]["studies"]["disagreeing"]
    assert name.startswith("<b>") and html.escape(name) in section
    assert "<b>" not in section and "<i>" not in section


def test_kinds_are_those_of_the_block_and_the_published_ones_only_context(results):
    block = results["test"]["kinds"]
    section = rendered(results, REPORT)
    rows = rows_of(section, "Kind", "Sensitivity")
    assert list(rows) == ["Fracture", "Hardware", "All"]
    for name, found in block["per_kind"].items():
        row = rows[name.capitalize()]
        assert row[:2] == [str(found["positives"]), str(found["called"])]
        assert row[2] == interval(found)
    assert "fewer than 20 patients" in rows["Hardware"][3]
    assert "53" not in " ".join(cell for row in rows.values() for cell in row)
    context = "Published context (Paper, 2.3): of 100 abnormal studies reviewed there"
    assert f"{context}, 53 fracture; how common" in text_of(section)
    assert "Published context" not in rendered(results)


def test_kinds_stand_alone_and_an_absent_kind_is_a_dash(results):
    per_kind = {"other": {"positives": 0, "called": 0}}
    per_kind["other"] |= {"value": None, "low": None, "high": None}
    per_kind["other"]["positive_patients"] = 0
    block = results["test"]["kinds"] | {"per_kind": per_kind}
    section = rendered({"test": {"kinds": block, "dataset": "x", "split": "test"}})
    assert rows_of(section, "Sensitivity")["Other"][:3] == ["0", "0", "–"]


def test_studies_by_label_are_counted_in_every_part(results):
    rows = rows_of(rendered(results), "not abnormal")
    for name, row in rows.items():
        cells = []
        for part in ("test", "val"):
            block = results[part]["metrics"]["auroc"]["per_class"][name]
            n, positives = block["n"], block["positives"]
            cells += [n - positives, positives, n]
        assert row == [str(n) for n in cells]
    assert sum(int(rows[name][2]) for name in TYPES) == int(rows["All"][2])


def test_parts_that_were_not_evaluated_by_study_are_not_counted(results):
    films = {"metrics": {"auroc": {"per_class": {"Abnormality": {}}}}}
    assert rendered({"test": results["test"], "val": films}, REPORT) == rendered(
        {"test": results["test"]}, REPORT
    )


def test_published_figures_are_there_with_their_split_and_sums(results):
    section = rendered(results, REPORT)
    rows = rows_of(section, "Published:", "readers")
    assert rows["Elbow"][:2] == ["0.858 [0.707, 0.959]", "0.848 [0.691, 0.955]"]
    assert rows["All"][:2] == ["0.884 [0.853, 0.918]", "–"]
    counts = rows_of(section, "Published:", "normal")
    assert counts["Hand"][-3:] == ["1,613", "602", "2,215"]
    assert counts["All"][-3:] == ["5,111", "2,821", "7,932"]
    text = text_of(section)
    assert "Paper, Table 2, on 209 unpublished studies" in text
    assert "not to be compared by subtraction" in text
    assert "computed" in text and "simulated" in text
    real = {"test": results["test"] | {"dataset": "bones/224px"}}
    assert "simulated" not in text_of(rendered(real, REPORT))
    assert ["JSRT", "Chest", "Nodule", "247"] in tables_of(section)[-1]


def test_published_figures_share_no_column_with_ours(results):
    """A config that tells of others adds columns and tables; ours stay as they are."""
    ours, both = (tables_of(rendered(results, given)) for given in (None, REPORT))
    assert len(both) == len(ours) + 2
    for mine in ours:
        width = len(mine[0])
        assert mine in [[row[:width] for row in table] for table in both]
    assert "Published" not in rendered(results)


def test_ours_stand_beside_published_readers_and_say_what_they_are_of(results):
    block = results["test"]["decision"]["per_class"]
    section = rendered(results, REPORT)
    rows = rows_of(section, "Ours, test:", "model against the labels")
    assert rows["Elbow"][2] == interval(block["Elbow"]["f1"])
    assert "the test part of phantom_bone/tiny" in text_of(section)
    one = {"value": 0.5, "low": 0.25, "high": 0.75}
    figures = {"f1": {"average": one, "model": block["Elbow"]["f1"]}}
    study = {"protocols": {"majority": {"per_class": {"Elbow": figures}}}}
    read = {"test": results["test"] | {"readers": study}}
    rows = rows_of(rendered(read, REPORT), "Ours, test:", "F1, readers")
    assert rows["Elbow"][2:] == [interval(one), interval(block["Elbow"]["f1"])]
    assert rows["All"][2:] == ["–", "–"]  # The study tells nothing of it.


def test_without_a_breakdown_there_is_one_row(results):
    films = results["test"]["studies"]["of_films"]
    block = results["test"]["studies"] | {"column": ""}
    result = results["test"] | {"metrics": films, "studies": block}
    section = rendered({"test": result})
    assert list(rows_of(section, "not abnormal")) == ["Abnormality"]
    assert 'class="total"' not in section.partition("kind of abnormality")[0]


def test_the_same_blocks_give_the_same_page(results):
    section = rendered(results, REPORT)
    assert section == rendered(results, REPORT)
    assert "None" not in section and "nan" not in section.lower()
