"""Anybody's predictions, scored as a run is; and everything that is refused."""

import csv
import errno
import gzip
import json
import os
import types

import jax
import numpy as np
import pytest

from cxr_jax import config as configs
from cxr_jax import main, score, score_inputs, scoring
from cxr_jax.data import labelled, leakage
from cxr_jax.evaluators.classification import Classification
from cxr_jax.labels import NIH14
from cxr_jax.pages import adjudicated, comparison
from cxr_jax.pages.evidence import read_evidence

CLASSES = ("Mass", "Pleural_Thickening")
FILMS = 240


class Case:
    """Labels with a split, and predictions of two models, in one folder."""

    def __init__(self, root):
        self.root = root
        rng = np.random.default_rng(0)
        self.labels = (rng.random((FILMS, 2)) < [0.4, 0.3]).astype(int)
        near = rng.normal(size=(FILMS, 2)) + 1.6 * self.labels
        far = near + rng.normal(size=(FILMS, 2)) * 2
        self.good, self.bad = (1 / (1 + np.exp(-z)) for z in (near, far))
        self.ids = [f"{k // 3:08d}_{k % 3:03d}.png" for k in range(FILMS)]
        self.parts = ["val" if k < 90 else "test" for k in range(FILMS)]
        about = [["", "M"][k % 2] for k in range(FILMS)]
        rows = [
            [i, s, p, *y]
            for i, s, p, y in zip(self.ids, about, self.parts, self.labels, strict=True)
        ]
        self.write(
            "labels.csv", ["id", "sex", "split_patient_disjoint", *CLASSES], rows
        )
        self.scores("good.csv", self.good, "test")
        self.scores("bad.csv", self.bad, "test")
        self.scores("val.csv", self.good, "val")

    def write(self, name, header, rows):
        with (self.root / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return str(self.root / name)

    def scores(self, name, probs, part, header=("id", *CLASSES)):
        used = [k for k in range(FILMS) if self.parts[k] == part]
        rows = [[self.ids[k], *(f"{p:.9g}" for p in probs[k])] for k in used]
        return self.write(name, header, rows)

    def path(self, name):
        return str(self.root / name)

    def run(self, *flags, output="out", predictions="good.csv", resamples=60):
        argv = [f"--predictions={self.path(predictions)}"]
        argv += [f"--labels={self.path('labels.csv')}", f"--resamples={resamples}"]
        argv += ["--split=patient_disjoint/test", f"--output={self.path(output)}"]
        return score.main([*argv, *flags])

    def result(self, part="test", output="out"):
        path = self.root / output / "evaluation" / part / "result.json"
        return json.loads(path.read_text())


@pytest.fixture
def case(tmp_path, monkeypatch):
    """Ranking alone, without the page: what takes time is asked for by ``page``."""
    monkeypatch.setattr(score.report, "write_report", lambda folder: folder)
    monkeypatch.setattr(score, "EVALUATORS", (Classification,))
    return Case(tmp_path)


@pytest.fixture
def page(case, monkeypatch):
    """The page, written by the command after all; with every evaluator."""
    monkeypatch.undo()
    return lambda: (case.root / "out" / "report" / "index.html").read_text()


def test_a_score_leaves_what_a_run_leaves(case, page, capsys):
    assert case.run() == 0
    out = capsys.readouterr().out
    result = case.result()
    mean = result["metrics"]["auroc"]["mean"]
    assert f"test: mean auroc {mean['value']:.4f}" in out
    assert "Research use only. Not for diagnostic use." in out
    assert mean["resampling_unit"] == "patient" and mean["low"] < mean["value"]
    assert result["n"] == 150 and result["checkpoint_step"] is None
    assert (
        result["split_sha256"]
        == json.loads((case.root / "out" / "split.json").read_text())["parts"]["test"][
            "sha256"
        ]
    )
    about = json.loads((case.root / "out" / "config.json").read_text())
    assert len(about["files"]["predictions"]["sha256"]) == 64
    assert about["command"][3].startswith("--predictions=")
    text = page()
    assert f"{mean['value']:.3f}" in text and "Score of good.csv" in text
    assert "labels of labels.csv" in text and "taken as they stand" in text


def test_scoring_again_gives_the_same_and_leaves_nothing_old(case):
    assert case.run(f"--validation={case.path('val.csv')}") == 0
    first = case.result()
    assert case.run() == 0
    again = case.result()
    assert again["metrics"] == first["metrics"]
    assert not (case.root / "out" / "evaluation" / "val").exists()


def test_the_written_predictions_score_the_same(case):
    assert case.run() == 0
    copy = "out/evaluation/test/predictions.csv"
    assert case.run(output="again", predictions=copy) == 0
    assert case.result(output="again")["metrics"] == case.result()["metrics"]


@pytest.mark.parametrize(
    "header",
    [
        ("Image Index", "prob_Mass", "prob_Pleural_Thickening"),
        ("image", "mass", "Pleural Thickening"),
        ("filename", "MASS score", "pleural-thickening score"),
        ("path", "y_Mass_hat", "y_Pleural_Thickening_hat"),
    ],
)
def test_columns_of_others_are_found_by_name(case, header):
    assert case.run() == 0
    want = case.result()["metrics"]
    case.scores("named.csv", case.good, "test", header)
    text = (case.root / "named.csv").read_text()
    if header[0] == "path":
        text = text.replace("\n0", "\nimages_001/images/0")
    with gzip.open(case.root / "named.csv.gz", "wt") as file:
        file.write(text)
    assert case.run(predictions="named.csv.gz", output="named") == 0
    found = case.result(output="named")
    assert found["metrics"] == want
    assert list(found["scored"]["columns"].values()) == list(header[1:])


def test_columns_in_another_order_are_read_by_name(case):
    assert case.run() == 0
    turned = ("id", *CLASSES[::-1])
    case.scores("turned.csv", case.good[:, ::-1], "test", turned)
    assert case.run(predictions="turned.csv", output="turned") == 0
    assert case.result(output="turned")["metrics"] == case.result()["metrics"]


def test_two_sets_of_columns_need_a_word(case, capsys):
    both = np.concatenate([case.good, case.bad], axis=1)
    header = ("id", *(f"a_{n}" for n in CLASSES), *(f"b_{n}" for n in CLASSES))
    case.scores("both.csv", both, "test", header)
    assert case.run(predictions="both.csv") == 2
    assert "2 sets of columns" in capsys.readouterr().err
    assert case.run("--columns=b_*", predictions="both.csv", output="b") == 0
    assert case.run(predictions="bad.csv", output="bad") == 0
    found = case.result(output="b")
    assert found["metrics"] == case.result(output="bad")["metrics"]
    assert any("a_Mass, a_Pleural_Thickening" in note for note in found["notes"])


def lines(case, name, edit):
    text = (case.root / name).read_text().splitlines()
    edit(text)
    (case.root / "edited.csv").write_text("\n".join(text) + "\n")


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda t: t.pop(3), "1 of the 150 films of part test are missing, such as"),
        (lambda t: t.append("new.png,.1,.2"), "1 of its 151 films are not of the part"),
        (lambda t: t.append(t[5]), "line 152: film 00000031_001.png is also in line 6"),
        (lambda t: t.__setitem__(4, t[4] + ",1"), "line 5: 4 cells"),
        (lambda t: t.__setitem__(2, "x.png,nan,.5"), "line 3: Mass is 'nan'"),
        (lambda t: t.__setitem__(2, "x.png,1.5,.5"), "line 3: Mass is '1.5'"),
        (lambda t: t.__setitem__(2, "x.png,-.1,.5"), "line 3: Mass is '-.1'"),
        (lambda t: t.__setitem__(2, "x.png,high,.5"), "line 3: Mass is 'high'"),
        (lambda t: t.__setitem__(2, ",.5,.5"), "line 3: no film name"),
        (lambda t: t.__setitem__(0, "id,Mass,Fibrosis"), "no column for Pleural_Thick"),
        (
            lambda t: t.__setitem__(0, "name,Mass,Pleural_Thickening"),
            "0 columns of film",
        ),
        (lambda t: t.__setitem__(0, "id,Mass,mass"), "two columns hold Mass"),
        (lambda t: t.__delitem__(slice(1, None)), "has a header and no film"),
    ],
)
def test_wrong_predictions_are_refused_in_one_line(case, capsys, edit, problem):
    lines(case, "good.csv", edit)
    assert case.run(predictions="edited.csv") == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert problem in shown.err and not shown.out
    assert not (case.root / "out").exists()


def test_films_left_out_on_demand_are_counted(case):
    lines(case, "good.csv", lambda t: (t.pop(3), t.append("new.png,.1,.2")))
    flags = ("--allow_extra", "--allow_missing")
    assert case.run(*flags, predictions="edited.csv") == 0
    result = case.result()
    assert (result["n"], result["scored"]["extra"], result["scored"]["missing"]) == (
        149,
        1,
        1,
    )
    notes = " ".join(result["notes"])
    assert "1 films of the part have no prediction" in notes
    passport = json.loads((case.root / "out" / "split.json").read_text())
    assert result["split_sha256"] != passport["parts"]["test"]["sha256"]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--split=test/everything"], "PART one of train, val, test"),
        (["--split=shuffled/test"], "split scheme 'shuffled' is unknown"),
        (["--split=official/test"], "no lists for the split 'official'"),
        (["--labels=nowhere.csv"], "nowhere.csv: cannot be read"),
        (["--labels=chestxray14", "--data_dir=nowhere"], "not prepared in nowhere"),
        (["--labels=chestxray14", "--manual_dir=nowhere"], "no such folder"),
        (["--margin=0.1"], "--margin goes with --compare"),
        (["--resamples=-1"], "0 or more is allowed"),
        (["--classes=Cough"], "Cough"),
        (["--mean_classes=Cough"], "mean_classes names Cough"),
        (["--validation=x.csv", "--split=test"], "--validation needs --split=SCHEME"),
        (["--colour=red"], "unrecognized arguments: --colour=red"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(case, capsys, flags, problem):
    assert case.run(*flags) == 2
    shown = capsys.readouterr()
    assert problem in shown.err and shown.err.count("\n") == 1
    assert not (case.root / "out").exists()


def test_a_full_disk_is_one_line_and_a_fault_of_ours_is_not(case, capsys, monkeypatch):
    def fails(number):
        def write(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(score, "_write_about", write)

    fails(errno.ENOSPC)
    assert case.run() == 1
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1].startswith("error: the disk is full ")
    assert not any("Traceback" in line for line in shown)
    fails(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        case.run()


def test_a_folder_with_other_things_in_it_is_left_alone(case, capsys):
    (case.root / "out").mkdir()
    (case.root / "out" / "config.json").write_text('{"name": "chexnet"}')
    assert case.run() == 2
    assert "holds files that are no score's" in capsys.readouterr().err
    assert [p.name for p in (case.root / "out").iterdir()] == ["config.json"]


def test_wrong_labels_are_refused_by_line(case, capsys):
    lines(case, "labels.csv", lambda t: t.__setitem__(7, t[7][:-1] + "2"))
    assert case.run(f"--labels={case.path('edited.csv')}") == 2
    assert (
        "line 8: Pleural_Thickening is '2'; 0, 1 or nothing" in capsys.readouterr().err
    )


def test_a_file_of_labels_needs_no_scheme(case):
    text = (case.root / "labels.csv").read_text()
    table = list(csv.reader(text.splitlines()))[1:]
    kept = [[r[0], "", *r[3:]] for r in table if r[2] == "test"]
    kept[0][2] = ""  # unknown
    labels = case.write("plain.csv", ["image", "patient", "mass", "Nodule"], kept)
    flags = [f"--predictions={case.path('good.csv')}", f"--labels={labels}"]
    flags += [f"--output={case.path('out')}", "--resamples=5", "--classes=Mass"]
    assert score.main(flags) == 0
    result = case.result()
    assert list(result["metrics"]["auroc"]["per_class"]) == ["Mass"]
    block = result["metrics"]["auroc"]["per_class"]["Mass"]
    # The patient is in the name of the film.
    assert (block["n"], block["resampling_unit"]) == (149, "patient")


def test_without_patients_the_interval_says_so(case):
    renamed = [f"film{k}" for k in range(FILMS)]
    rows = [[i, *y] for i, y in zip(renamed, case.labels, strict=True)]
    labels = case.write("anonymous.csv", ["id", *CLASSES], rows)
    rows = [[i, *p] for i, p in zip(renamed, case.good, strict=True)]
    case.write("p.csv", ["id", *CLASSES], rows)
    assert case.run(f"--labels={labels}", "--split=test", predictions="p.csv") == 0
    mean = case.result()["metrics"]["auroc"]["mean"]
    assert mean["resampling_unit"] == "image-level, likely too narrow"
    # Named by the predictions, they are known after all.
    rows = [[row[0], f"p{k // 3}", *row[1:]] for k, row in enumerate(rows)]
    case.write("p.csv", ["id", "Patient ID", *CLASSES], rows)
    assert case.run(f"--labels={labels}", "--split=test", predictions="p.csv") == 0
    assert case.result()["metrics"]["auroc"]["mean"]["resampling_unit"] == "patient"


def test_a_better_model_is_told_from_a_worse_one(case, capsys):
    flag = f"--compare={case.path('bad.csv')}"
    assert case.run(flag, "--margin=0.02", resamples=200) == 0
    found = case.result()["comparison"]
    block = found["metrics"]["auroc"]
    assert found["names"] == ["good.csv", "bad.csv"] and found["n"] == 150
    own = case.result()["metrics"]["auroc"]
    for name in CLASSES:
        value = block["per_class"][name]
        assert value["ours"] == pytest.approx(own["per_class"][name]["value"])
        assert value["value"] == pytest.approx(value["ours"] - value["theirs"])
        assert 0 < value["low"] < value["value"] < value["high"]
        assert value["p_holm"] >= value["p"] and value["delong"]["p_holm"] < 0.05
        assert value["verdict"].startswith("good.csv is higher (interval +0.")
        assert value["verdict"].endswith("; not inferior by more than 0.02")
        assert value["non_inferior"] is True
    assert "good.csv against bad.csv: mean auroc" in capsys.readouterr().out
    # The other way round everything changes its sign.
    flag = f"--compare={case.path('good.csv')}"
    assert case.run(flag, predictions="bad.csv", output="back", resamples=200) == 0
    back = case.result(output="back")["comparison"]["metrics"]["auroc"]
    for there, here in (
        (block["mean"], back["mean"]),
        (block["per_class"]["Mass"], back["per_class"]["Mass"]),
    ):
        assert here["value"] == pytest.approx(-there["value"])
        assert here["low"] == pytest.approx(-there["high"], abs=1e-9)
        assert here["p_holm"] == there["p_holm"]
    assert "good.csv is higher" in back["mean"]["verdict"]


def test_a_model_against_itself_differs_by_nothing(case):
    flags = (f"--compare={case.path('good.csv')}", "--margin=0.01")
    assert case.run(*flags, resamples=100) == 0
    found = case.result()["comparison"]
    for metric in found["metrics"].values():
        for value in (*metric["per_class"].values(), metric["mean"]):
            assert (value["value"], value["low"], value["high"]) == (0, 0, 0)
            assert value["p_holm"] == 1
            assert "No difference detected (interval +0.0000" in value["verdict"]
            assert "comparable" not in value["verdict"]
    text = comparison.section(read_evidence(case.root / "out"))
    assert "No difference detected" in text and "non-inferiority" in text


def test_too_few_resamples_give_no_verdict(case):
    # Two classes need 2 / (R + 1) <= 0.05 / 2.
    assert case.run(f"--compare={case.path('bad.csv')}", resamples=78) == 0
    found = case.result()["comparison"]
    for value in found["metrics"]["auroc"]["per_class"].values():
        assert value["verdict"].startswith("Too few resamples to tell (interval +0.")
    assert any("78 resamples are too few" in note for note in found["notes"])
    assert "good.csv is higher" in found["metrics"]["auroc"]["mean"]["verdict"]
    assert case.run(f"--compare={case.path('bad.csv')}", resamples=79) == 0
    values = case.result()["comparison"]["metrics"]["auroc"]["per_class"].values()
    assert all("good.csv is higher" in value["verdict"] for value in values)


def test_without_intervals_nothing_is_claimed(case):
    assert case.run(f"--compare={case.path('bad.csv')}", resamples=0) == 0
    mean = case.result()["comparison"]["metrics"]["auroc"]["mean"]
    assert (mean["p"], mean["verdict"]) == (None, "No interval, no claim")


def test_thresholds_are_frozen_on_the_validation_predictions(case, page):
    assert case.run(f"--validation={case.path('val.csv')}") == 0
    val, test = case.result("val"), case.result()
    assert val["n"] == 90 and test["n"] == 150
    assert test["frozen"] == val["frozen"] and test["frozen"]["operating_points"]
    assert test["operating_points"]["per_class"]
    assert test["subgroups"] and "Score of good.csv" in page()
    assert case.run() == 0
    assert case.result()["frozen"] is None
    assert "nothing was frozen" in case.result()["operating_points"]["reason"]


def test_adjudicated_labels_stand_beside_the_others_on_the_same_films(case):
    judged = range(100, 170)
    rows = [[case.ids[k], case.labels[k, 0], ""] for k in judged]
    rows[0][1] = 1 - rows[0][1]
    rows[1] = [case.ids[101], "", case.labels[101, 1]]  # for the other class alone
    path = case.write("judged.csv", ["id", "Mass", "Pleural Thickening"], rows)
    assert case.run(f"--adjudicated={path}") == 0
    found = case.result()["adjudicated"]
    assert found["n"] == 70 and "judged.csv" in found["reference"]
    assert found["agreement"]["Mass"] == pytest.approx(68 / 69)
    assert found["agreement"]["Pleural_Thickening"] == 1
    mined, readers = (found[key]["auroc"]["per_class"] for key in ("mined", "metrics"))
    assert mined["Mass"]["n"] == readers["Mass"]["n"] == 69
    assert mined["Mass"]["value"] != readers["Mass"]["value"]
    assert readers["Pleural_Thickening"]["value"] is None
    assert readers["Pleural_Thickening"]["n"] == 1
    assert found["metrics"]["auroc"]["mean"]["classes"] == ["Mass"]
    text = adjudicated.section(read_evidence(case.root / "out"))
    assert "Reference: adjudicated labels (judged.csv)." in text
    assert "undefined: no" in text


def test_adjudicated_films_nobody_knows_are_refused_by_line(case, capsys):
    path = case.write("judged.csv", ["id", "Mass"], [[case.ids[99], 1], ["x.png", 0]])
    assert case.run(f"--adjudicated={path}") == 2
    assert "line 3: film x.png is not among the labels" in capsys.readouterr().err


def test_films_that_a_model_was_made_with_are_refused(case, capsys):
    def train(text):
        (case.root / "train.txt").write_text(text)
        return f"--trained_on={case.path('train.txt')}"

    test = [i for i, part in zip(case.ids, case.parts, strict=True) if part == "test"]
    flag = train(f"{test[0]}\n99999999_000.png\n")
    assert case.run(flag) == 2
    shown = capsys.readouterr().err
    assert "1 are films of this run's train part and 2 more are of its" in shown
    assert "--allow_seen" in shown and not (case.root / "out").exists()
    assert case.run(train(f"{test[0][:8]}_077.png\n")) == 2  # the patient alone
    assert "0 are films of this run's train part and 3 more" in capsys.readouterr().err
    assert case.run(flag, "--allow_seen") == 0
    assert any(n.startswith("LEAKS, as asked for") for n in case.result()["notes"])
    assert case.run(train("99999999_000.png\n")) == 0
    assert any("No film and no patient" in n for n in case.result()["notes"])


def test_the_films_of_a_run_are_refused(case, capsys):
    assert case.run(f"--trained_on={case.root}") == 2
    assert "has no split.json of a run" in capsys.readouterr().err
    source = labelled.read_source(case.path("labels.csv"))
    index = {"train": np.arange(150, 153), "val": np.arange(60), "test": np.arange(0)}
    run = case.root / "run"
    run.mkdir()
    (run / "split.json").write_text('{"dataset": "toy/16px"}')
    assert case.run(f"--trained_on={run}") == 2
    assert "nobody knows which films" in capsys.readouterr().err
    (run / leakage.FILE).write_bytes(leakage.format_ids(source.records, index))
    assert case.run(f"--trained_on={run}") == 2
    assert "of 150 evaluated films 3 are films of this run's train" in (
        capsys.readouterr().err
    )


def test_what_nobody_said_is_said(case):
    assert case.run() == 0
    assert score_inputs.UNCHECKED in case.result()["notes"]
    (case.root / "train.txt").write_text("99999999_000.png\n")
    assert case.run(f"--trained_on={case.path('train.txt')}") == 0
    assert score_inputs.UNCHECKED not in case.result()["notes"]


def write_config(case, **data):
    lines = [f"    c.data.{key} = {value!r}" for key, value in data.items()]
    head = "from configs import common\ndef get_config():\n    c = common.base()\n"
    text = head + "\n".join([*lines, "    return c", "VARIANTS = {}", ""])
    (case.root / "configs").mkdir(exist_ok=True)
    (case.root / "configs" / "mine.py").write_text(text)
    return case.path("configs/mine.py")


def test_films_set_apart_are_those_of_the_config_or_the_run(case, capsys):
    every = [[i, *p] for i, p in zip(case.ids, case.good, strict=True)]
    case.write("all.csv", ["id", *CLASSES], every)
    flags = ["--split=set_apart/test", "--allow_extra"]

    def films(*more):
        assert case.run(*flags, *more, predictions="all.csv", resamples=0) == 0
        return json.loads((case.root / "out" / "split.json").read_text())

    assert case.run(*flags, predictions="all.csv") == 2
    assert "give --config=FILE.py:VARIANT, or --trained_on=RUN" in (
        capsys.readouterr().err
    )
    told = {"holdout": 30, "holdout_from": "patient_disjoint/test", "split_seed": 3}
    config = write_config(case, **told, fractions=(0.6, 0.4, 0.0))
    found = films(f"--config={config}")
    assert found["parts"]["test"]["images"] == case.result()["n"] == 30
    assert (found["seed"], found["holdout_from"]) == (3, told["holdout_from"])
    assert found["fractions"] == [0.6, 0.4, 0.0]
    seeded = films(f"--config={config}", "--split_seed=4")
    assert seeded["seed"] == 4 and seeded["parts"] != found["parts"]
    run = case.root / "run"
    run.mkdir()
    (run / "config.json").write_text(configs.to_json(configs.load(config)))
    (run / "split.json").write_text('{"dataset": "toy/16px"}')
    source = labelled.read_source(case.path("labels.csv"))
    index = {name: np.arange(0) for name in ("train", "val", "test")}
    (run / leakage.FILE).write_bytes(leakage.format_ids(source.records, index))
    assert films(f"--trained_on={run}") == found
    (run / "config.json").write_text("{}")
    assert case.run(*flags, f"--trained_on={run}", predictions="all.csv") == 2
    assert "has no config.json of a run" in capsys.readouterr().err


def test_a_stratified_part_is_that_of_the_config(case):
    every = [[i, *p] for i, p in zip(case.ids, case.good, strict=True)]
    case.write("all.csv", ["id", *CLASSES], every)

    def films(split, *more):
        flags = [f"--split={split}", "--allow_extra", *more]
        assert case.run(*flags, predictions="all.csv", resamples=0) == 0
        return json.loads((case.root / "out" / "split.json").read_text())

    config = f"--config={write_config(case, scheme='stratified', patients=0.5)}"
    half, whole = films("stratified/test", config), films("stratified/test")
    assert (half["patients"], whole["patients"]) == (0.5, 1.0)
    assert half["left_out"] > 0 == whole["left_out"]
    assert half["balance"]["targets"]["test"] == 0.2
    # Films of a list are all of them.
    assert "patients" not in films("patient_disjoint/test", config)


def readers_of(case, films):
    rows = [
        [case.ids[k], who, *(case.labels[k] ^ (k % n == 0))]
        for k in films
        for n, who in ((5, "ann"), (7, "bob"), (3, "cid"), (4, "dan"))
    ]
    return case.write("readers.csv", ["id", "reader", *CLASSES], rows)


def test_readers_read_the_films_too(case, page, capsys):
    # Some of the films are of another part.
    readers = f"--readers={readers_of(case, range(80, 170))}"
    val = f"--validation={case.path('val.csv')}"
    assert case.run(readers, val, resamples=0) == 0
    assert "4 readers read 80 of the films" in capsys.readouterr().out
    block = case.result()["readers"]
    assert (block["films"], block["films_elsewhere"]) == (80, 10)
    assert list(block["protocols"]) == ["majority", "each_other"]
    frozen = case.result()["frozen"]["operating_points"]
    assert block["threshold"]["values"] == {
        name: frozen[name]["f1"]["threshold"] for name in CLASSES
    }
    about = json.loads((case.root / "out" / "config.json").read_text())
    assert about["files"]["readers"]["sha256"] == block["sha256"]
    assert "readers.csv" in page() and "readers" not in case.result("val")


def test_a_reader_study_is_as_the_config_says(case):
    path = readers_of(case, range(90, 130))
    config = write_config(case)
    text = (case.root / "configs" / "mine.py").read_text()
    edit = "    c.eval.evaluators[3].update(threshold='0.4', protocols=('majority',))\n"
    (case.root / "configs" / "mine.py").write_text(
        text.replace("    return c", f"{edit}    return c")
    )
    assert case.run(f"--readers={path}", f"--config={config}", resamples=0) == 0
    block = case.result()["readers"]
    assert set(block["threshold"]["values"].values()) == {0.4}
    assert list(block["protocols"]) == ["majority"]


def test_wrong_readers_are_refused_before_anything_is_computed(case, capsys):
    path = case.write("r.csv", ["id", "reader", "Mass"], [["x.png", "ann", 1]])
    assert case.run(f"--readers={path}") == 2
    assert "r.csv, line 2: film 'x.png' is unknown" in capsys.readouterr().err
    assert not (case.root / "out").exists()


def test_classes_of_one_label_alone_are_compared_as_undefined(case):
    rows = [[i, 0, 0] for i in case.ids]
    labels = case.write("none.csv", ["id", *CLASSES], rows)
    flags = [f"--labels={labels}", "--split=test", "--margin=0.02", "--allow_missing"]
    assert case.run(*flags, f"--compare={case.path('bad.csv')}") == 0
    metrics = case.result()["comparison"]["metrics"]
    for block in metrics.values():
        for value in (block["mean"], *block["per_class"].values()):
            assert value["verdict"] == "Undefined" and value["non_inferior"] is None
    text = comparison.section(read_evidence(case.root / "out"))
    assert "Undefined" in text


def test_compiled_programs_are_kept_where_runs_keep_theirs(case, monkeypatch, tmp_path):
    keys = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    before = [getattr(jax.config, key) for key in keys]
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in names:
        monkeypatch.setenv(name, "")  # so that what is set next is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(score, "_score", lambda flags, argv: None)
    try:
        jax.config.update(keys[0], None)
        jax.config.update(keys[1], 9.0)
        assert case.run() == 0
        found = [str(getattr(jax.config, key)) for key in keys]
        main._prepare_jax(deterministic=False)
        assert found == [score.os.environ[name] for name in names]
        # What the user says stands.
        jax.config.update(keys[0], "elsewhere")
        jax.config.update(keys[1], 9.0)
        assert case.run() == 0
        assert [getattr(jax.config, key) for key in keys] == ["elsewhere", 9.0]
    finally:
        for key, value in zip(keys, before, strict=True):
            jax.config.update(key, value)


def test_published_predictions_give_the_published_figures(
    real_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(score.report, "write_report", lambda folder: folder)
    monkeypatch.setattr(score, "EVALUATORS", (Classification,))
    published = real_dir / "nih" / "published_predictions"
    flags = [
        f"--predictions={published / 'densenet121_test_predictions.csv.gz'}",
        f"--manual_dir={real_dir / 'nih'}",
        f"--output={tmp_path / 'out'}",
    ]
    flags += ["--labels=chestxray14", "--split=patient_disjoint/test", "--resamples=32"]
    assert score.main(flags) == 0
    folder = tmp_path / "out" / "evaluation" / "test"
    result = json.loads((folder / "result.json").read_text())
    with (published / "densenet121_test_auroc.csv").open() as file:
        want = {row["label"]: float(row["auc"]) for row in csv.DictReader(file)}
    block = result["metrics"]["auroc"]["per_class"]
    assert tuple(block) == NIH14 and set(want) == set(NIH14)
    for name, auroc in want.items():
        assert block[name]["value"] == pytest.approx(auroc, abs=5e-7)
        assert block[name]["low"] < auroc < block[name]["high"]
        assert block[name]["resampling_unit"] == "patient"
    assert result["n"] == 22433 and result["dataset"].startswith("chestxray14/")
    assert "Reference: labels mined from reports, not disease." in result["notes"]
    passport = json.loads((tmp_path / "out" / "split.json").read_text())
    assert passport["patient_overlap"] == 0
    assert passport["parts"]["test"]["patients"] == 6187


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("chestxray14/256px", "mined from reports"),
        ("phantom_chest/tiny", "with a report's errors"),
        ("phantom_bone/tiny", "the phantom's true state"),
        ("mura/224px", "one radiologist gave each study"),
    ],
)
def test_labels_are_told_to_be_what_they_are(name, word):
    kind = labelled.SIMULATED if name.startswith("phantom") else labelled.MINED
    source = types.SimpleNamespace(name=name, file="records.csv", kind=kind)
    assert word in scoring.reference(source)
