"""The page stands alone, says what must be said, and keeps phantoms to themselves."""

import dataclasses
import html.parser
import json
import logging
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest

from cxr_jax import evaluate, main, report, samples
from cxr_jax.errors import ConfigError, DataError
from cxr_jax.predictions import Predictions

CLASSES = ("Mass", "Nodule", "Pleural_Thickening", "Hernia")
LIMITS = "It sees no prior films, no lateral view, no history."
PUBLISHED = (
    {
        "name": "Paper <i>v1</i>",
        "split": "random 70/10/20",
        "values": dict(zip(CLASSES, (0.8618, 0.7766, 0.8138, 0.9387), strict=True)),
    },
)


class Page(html.parser.HTMLParser):
    """Collects text, addresses and tables; notices tags that are not closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.text, self.sources, self.tags = [], "", [], set()
        self.tables, self.headings = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)

    def table(self, first_head: str, containing: str):
        for rows in self.tables:
            if rows[0][0] == first_head and any(containing in c for c in rows[0]):
                return {row[0]: row for row in rows}
        raise AssertionError(f"no table with {containing}")


def make_table(films: int = 240) -> Predictions:
    rng = np.random.default_rng(0)
    labels = (rng.random((films, 4)) < [0.3, 0.3, 0.05, 0]).astype(np.float32)
    logits = rng.normal(size=(films, 4)) + 1.5 * labels - 1
    return Predictions(
        classes=CLASSES,
        ids=np.asarray([f"<b>{k}</b>" for k in range(films)]),  # must be escaped
        patients=np.asarray([f"p{k // 2}" for k in range(films)]),
        studies=np.asarray([""] * films),
        index=np.arange(films),
        probs=(1 / (1 + np.exp(-logits))).astype(np.float32),
        labels=labels,
    )


def write_part(workdir, part: str, predictions: Predictions, dataset: str):
    result = evaluate.evaluate_table(
        predictions,
        dataset=dataset,
        split=part,
        split_sha256="ab" * 32,
        checkpoint_step=20,
        weights_sha256="cd" * 32,
        mean_classes=("Mass", "Nodule", "Hernia"),
        resamples=30,
    )
    evaluate.write_evaluation(workdir / "evaluation" / part, predictions, result)
    return result


def make_run(workdir, *, dataset: str, ceilings=None):
    config = {
        "name": "chexnet",
        "report": {
            "title": "A <run>",
            "published": PUBLISHED,
            "ceilings": ceilings,
            "limits": LIMITS,
        },
    }
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(config))
    parts = {
        name: {"images": 1000, "patients": 300, "sha256": "ef" * 32}
        for name in ("train", "val", "test")
    }
    passport = {"scheme": "patient_disjoint", "seed": 0, "patient_overlap": 0}
    (workdir / "split.json").write_text(json.dumps(passport | {"parts": parts}))
    lines = [
        {"step": s, "epoch": s / 10, "split": split, "loss": 1 / s, "auroc": 0.7}
        for s in (10, 20)
        for split in ("train", "val")
    ]
    lines[1]["auroc"] = None  # undefined on that day
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("phantom") / "run"
    ceilings = dict(zip(CLASSES, (0.99, 0.95, 0.8, None), strict=True))
    make_run(workdir, dataset="phantom_chest/tiny", ceilings=ceilings)
    table = make_table()
    truth = table.labels.copy()
    table.labels[::9] = 1 - table.labels[::9]
    table.labels[:, 3] = 0
    table = dataclasses.replace(table, truth=truth)
    write_part(workdir, "val", make_table(), "phantom_chest/tiny")
    result = write_part(workdir, "test", table, "phantom_chest/tiny")
    choices = samples.choose_samples(table, count=6)
    rng = np.random.default_rng(0)
    rows = [choice.row for choice in choices]
    shown = samples.Samples(
        films=rng.integers(0, 255, (6, 32, 32)).astype(np.uint8),
        maps=rng.normal(size=(6, 8, 8)).astype(np.float32),
        classes=np.asarray([table.classes[choice.column] for choice in choices]),
        kinds=np.asarray([choice.kind for choice in choices]),
        ids=table.ids[rows],
        probs=np.full(6, 0.25, np.float32),
        ranks=np.arange(1, 7),
        boxes=np.full((6, 0, 4), np.nan, np.float32),
    )
    samples.write_samples(workdir / "evaluation" / "test", shown)
    text = report.write_report(workdir).read_text()
    return workdir, text, Page(text), result


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("real") / "run"
    make_run(workdir, dataset="chestxray14/256px")
    result = write_part(workdir, "test", make_table(), "chestxray14/256px")
    (workdir / "metrics.jsonl").unlink()
    return Page(report.write_report(workdir).read_text()), result


def test_the_page_needs_no_other_file_and_no_network(phantom):
    workdir, text, page, _ = phantom
    assert [p.name for p in (workdir / "report").iterdir()] == ["index.html"]
    assert len(text) < 5_000_000
    # Pictures within the page, and links to its own sections.
    inside = [s for s in page.sources if s.startswith("#")]
    pictures = [s for s in page.sources if s not in inside]
    assert inside and all(f'id="{link[1:]}"' in text for link in inside)
    assert pictures and all(s.startswith("data:image/") for s in pictures)
    assert not page.tags & {"script", "link", "iframe", "object", "base", "form"}
    assert not re.search(r"https?://|@import|url\(", text)
    assert "Content-Security-Policy" in text


def test_the_same_files_give_the_same_page(phantom):
    workdir, text, _, _ = phantom
    assert report.write_report(workdir).read_text() == text


def test_names_from_files_cannot_become_markup(phantom):
    _, text, page, _ = phantom
    assert "b" not in page.tags and "<run>" in page.text and "<b>" in page.text
    assert "A &lt;run&gt;" in text


def test_the_headline_is_the_test_part_with_interval_and_list(phantom):
    _, _, page, result = phantom
    mean = result["metrics"]["auroc@truth"]["mean"]
    assert mean["classes"] == ["Mass", "Nodule"]
    for word in (
        f"{mean['value']:.3f}",
        f"95% interval {mean['low']:.3f} – {mean['high']:.3f}",
        "Means run over: Mass, Nodule.",
        "Left out: Hernia (undefined: no positive film)",
        "resampling unit: patient",
        "test part, 240 films",
        "checkpoint of step 20",
        "patient_disjoint",
    ):
        assert word in page.text
    told = " ".join(report.table_1(phantom[0]).split())
    assert (
        "Mean of the list: over 2 of 4 classes, without Pleural Thickening, Hernia."
        in told
    )


def test_the_words_that_stand_on_every_output(phantom, real):
    for page in (phantom[2], real[0]):
        assert "Research use only. Not for diagnostic use." in page.text
        assert "no prior films, no lateral view, no history" in page.text
        assert "A low score is a score below others, not a normal film." in page.text
        assert "Scores are as the model gives them" in page.text
    # Of maps only where there are some.
    assert "influence" in phantom[2].text and "not the extent" in phantom[2].text
    assert "influence" not in real[0].text
    # Nothing was frozen for these: no section says what scores mean.
    assert "Operating points and probabilities" not in real[0].text
    assert "as probabilities is unknown: none was calibrated." in real[0].text
    assert "Reference: labels mined from reports, not disease." in real[0].text
    assert "simulated labels" in phantom[2].text


def test_phantom_figures_never_share_a_table_with_published_ones(phantom):
    page = phantom[2]
    assert "Published, not comparable" in page.headings
    holding = [t for t in page.tables if any("Paper <i>v1</i>" in c for c in t[0])]
    assert len(holding) == 1 and holding[0][0] == [
        "Class",
        "Paper <i>v1</i>\nrandom 70/10/20",
    ]
    assert holding[0][-1] == ["Mean", "0.8477"]


def test_published_columns_stand_beside_real_films_with_their_split(real):
    page, result = real
    table = page.table("Class", "Paper <i>v1</i>\nrandom 70/10/20")
    assert (
        "Ours: run\nchestxray14/256px\npatient_disjoint, test\n240 films"
        in (table["Class"])
    )
    assert "0.8618" in table["Mass"]
    block = result["metrics"]["auroc"]["per_class"]["Mass"]
    want = f"{block['value']:.3f} [{block['low']:.3f}, {block['high']:.3f}]"
    assert want in table["Mass"]
    assert "Published, not comparable" not in page.headings
    assert "not subtracted" in page.text
    assert not any("ifference" in head for head in table["Class"])


def test_undefined_and_thin_classes_are_marked(phantom):
    table = phantom[2].table("Class", "AUROC\nagainst truth")
    assert table["Hernia *"].count("undefined") == 2
    assert "undefined: no positive film" in table["Hernia *"][-1]
    assert "0.800" in table["Pleural Thickening *"]  # its ceiling; not in the mean
    assert table["Mass"][-1] == ""
    assert any("fewer than 20 positive patients" in row[-1] for row in table.values())


def test_every_section_is_there(phantom, real):
    wanted = [
        "AUROC per class",
        "Average precision",
        "Training",
        "ROC and reliability",
        "Sample films",
        "Parts and split passport",
        "Config and environment",
    ]
    assert [h for h in phantom[2].headings if h in wanted] == wanted
    assert "No training log was found." in real[0].text
    parts = phantom[2].table("Part", "auroc@truth")
    assert set(parts) == {"Part", "test", "val"} and parts["val"][-1] == "–"
    assert "ef" * 32 in phantom[2].table("Part", "SHA-256")["train"]


def test_the_gallery_shows_failures(phantom):
    text = phantom[2].text
    for kind in (samples.HIT, samples.MISS, samples.ALARM):
        assert text.count(kind + ":") == 2
    assert "rank 1 of 240" in text


def test_runs_stand_beside_each_other_under_names_that_tell_them_apart(
    phantom, tmp_path
):
    workdir = phantom[0]
    other = tmp_path / "run"
    shutil.copytree(workdir, other)
    page = Page(report.write_report(other, [workdir, other]).read_text())
    heads = page.table("Class", "Ours: ")["Class"]
    ours = [head.split("\n")[0] for head in heads if head.startswith("Ours")]
    assert ours == [f"Ours: {p.parent.name}/run" for p in (other, workdir)]
    assert "Runs on computed films, side by side" in page.headings
    text = report.table_1(other, [workdir])
    assert all(name.removeprefix("Ours: ") in text for name in ours)
    assert "Paper" not in text


def test_runs_are_named_by_their_networks(phantom, tmp_path):
    runs = [tmp_path / name for name in ("x", "y", "z", "w")]
    for run, network in zip(runs, ("Simple CNN", "Fusion", "Fusion", ""), strict=True):
        shutil.copytree(phantom[0], run)
        config = json.loads((run / "config.json").read_text())
        config["report"]["model"] = network
        (run / "config.json").write_text(json.dumps(config))
    page = Page(report.write_report(runs[0], runs[1:]).read_text())
    heads = page.table("Class", "Ours: ")["Class"]
    ours = [head.split("\n")[0] for head in heads if head.startswith("Ours")]
    names = ["Simple CNN", "Fusion (y)", "Fusion (z)", "w"]
    assert ours == [f"Ours: {name}" for name in names]


@pytest.mark.parametrize("name", ["", "missing", "run,"])
def test_a_run_that_is_not_there_is_refused(phantom, tmp_path, name):
    with pytest.raises(ConfigError, match="is not a folder; give workdirs"):
        report.write_report(phantom[0], [tmp_path, tmp_path / name if name else ""])
    with pytest.raises(DataError, match=f"{tmp_path} holds no evaluation"):
        report.table_1(phantom[0], [tmp_path])


@pytest.fixture
def command(monkeypatch, capsys):
    """``--mode=report`` in this process, which keeps its hooks, loggers and variables."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(main, "_prepare_jax", lambda deterministic: None)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    for name in ("absl", "asyncio", "cxr_jax"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "setLevel", lambda level: None)
    config = pathlib.Path(main.__file__).parents[1] / "configs" / "chexnet.py"

    def run(*argv):
        argv = (f"--config={config}:phantom", *argv)
        return main.main([str(word) for word in argv]), *capsys.readouterr()

    return run


def test_the_command_prints_table_1_and_sets_runs_beside_each_other(
    command, phantom, tmp_path
):
    runs = [tmp_path / name for name in ("a", "b")]
    for run in runs:
        shutil.copytree(phantom[0], run)
    flags = (f"--workdir={runs[0]}", "--mode=report")
    code, out, _ = command(*flags)
    *table, last = out.splitlines()
    assert code == 0 and last == f"report: {runs[0].resolve()}/report/index.html"
    assert table[0].startswith("AUROC. ") and "Ceiling" in out and "Paper" not in out
    assert any(line.startswith("Pleural Thickening  ") for line in table)
    code, out, _ = command(*flags, f"--runs={runs[1]}")
    assert code == 0 and "Ours: a" in out and "Ours: b" in out
    assert "Ours: b" in (runs[0] / "report" / "index.html").read_text()


def test_a_command_with_wrong_runs_ends_in_one_line(command, phantom, tmp_path):
    (tmp_path / "empty").mkdir()
    flags = (f"--workdir={phantom[0]}", "--mode=report")
    for argv, words in (
        ((*flags, f"--runs={tmp_path / 'none'}"), "is not a folder; give workdirs"),
        ((*flags, "--runs="), "--runs: '' is not a folder"),
        ((*flags, f"--runs={tmp_path / 'empty'}"), "run --mode=evaluate first"),
        ((flags[0], "--runs=a"), "--runs is of --mode=report"),
    ):
        code, out, err = command(*argv)
        assert code == 2 and out == ""
        assert err.startswith("error: ") and err.count("\n") == 1 and words in err


def test_a_run_without_results_or_with_broken_ones_is_refused(tmp_path):
    with pytest.raises(DataError, match="--mode=evaluate"):
        report.write_report(tmp_path)
    folder = tmp_path / "evaluation" / "test"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        report.write_report(tmp_path)
    assert not (tmp_path / "report").exists()
