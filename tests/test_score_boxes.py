"""Anybody's boxes, scored as a run's are: by hand, by counting, and as published."""

import csv
import dataclasses
import functools
import gzip
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cxr_jax import box_scoring, results, score, trained_on
from cxr_jax.data import box_files, labelled, parts, source
from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.classification import Classification
from cxr_jax.evaluators.detection import IOU, USUAL, Detection
from cxr_jax.labels import CXR8
from cxr_jax.predictions import Predictions
from cxr_jax.types import Boxes

CLASSES = ("Mass", "Nodule", "Fibrosis")  # The last one never has boxes.
WHERE = (0.1, 0.2, 0.5, 0.6)
ELSEWHERE = (0.7, 0.7, 0.9, 0.9)
CORNERS = ("x1", "y1", "x2", "y2")


class Case:
    """Files in a folder, and the command on them."""

    def __init__(self, root):
        self.root = root

    def write(self, name, header, rows):
        with (self.root / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return str(self.root / name)

    def labels(self, rows, header=("id", *CLASSES)):
        return self.write("labels.csv", header, rows)

    def references(self, rows):
        return self.write("references.csv", ("id", "class", *CORNERS), rows)

    def boxes(self, rows, name="boxes.csv"):
        return self.write(name, ("id", "class", "score", *CORNERS), rows)

    def flags(self, *more, resamples=0):
        files = {n: self.root / f"{n}.csv" for n in ("labels", "boxes")}
        flags = [f"--{name}={path}" for name, path in files.items()]
        if (self.root / "references.csv").exists():
            flags.append(f"--reference_boxes={self.root / 'references.csv'}")
        flags += [f"--output={self.root / 'out'}", f"--resamples={resamples}"]
        return [*flags, *more]

    def run(self, *more, **how):
        return score.main(self.flags(*more, **how))

    def result(self):
        return json.loads((self.root / "out/evaluation/test/result.json").read_text())

    def value(self, metric, name=None):
        block = self.result()["metrics"][metric]
        return (block["per_class"][name] if name else block["mean"])["value"]


@pytest.fixture
def case(tmp_path, monkeypatch):
    """Without the page, and of probabilities with ranking alone."""
    monkeypatch.setattr(score.report, "write_report", lambda folder: folder)
    monkeypatch.setattr(score, "EVALUATORS", (Classification,))
    return Case(tmp_path)


@pytest.fixture
def five(case):
    """Four boxed films and one without: found, missed in place, found, not predicted."""
    films = [f"f{k}.png" for k in range(5)]
    case.labels([[name, int(k < 4), int(k == 4), 0] for k, name in enumerate(films)])
    case.references([[name, "Mass", *WHERE] for name in films[:4]])
    said = zip(films, (0.9, 0.8, 0.7), (WHERE, ELSEWHERE, WHERE), strict=False)
    case.boxes([[name, "Mass", s, *box] for name, s, box in said])
    return case


@pytest.fixture
def page(case, monkeypatch):
    """The page, written by the command after all."""
    monkeypatch.undo()
    return lambda: (case.root / "out" / "report" / "index.html").read_text()


# --- figures --------------------------------------------------------------------------


def test_figures_by_hand(five, capsys):
    """Found, false, found, of four: the AP of the specification at every overlap."""
    assert five.run() == 0
    for threshold in IOU:
        assert five.value(f"ap@{threshold:g}", "Mass") == pytest.approx(
            0.422442, abs=1e-6
        )
        # Found 2, empty 1, false 1, missed 2.
        assert five.value(f"loc_acc@{threshold:g}", "Mass") == pytest.approx(3 / 6)
    block = five.result()["detection"]
    assert block["predicted"] == {"Mass": 3, "Nodule": 0}
    assert block["reference"] == {"Mass": 4, "Nodule": 0}
    assert block["rows"]["no boxes"]["loc_acc@0.3"] == pytest.approx(1 / 5)
    # Nodule is labelled on one film and boxed on none.
    assert block["unboxed"] == 1
    out = capsys.readouterr().out
    assert "test: mean map 0.4224 over 1 class (Mass), 5 films" in out
    assert "loc_acc@0.3: 0.500; without any box it is 0.200" in out
    assert "1 of 5 films have a label of these classes that nobody boxed" in out
    assert "3 of 5 films have a predicted box, 2 have none; 4 have a reference" in out
    assert "(4 boxes, references.csv)" in out
    assert "Research use only. Not for diagnostic use." in out


def test_accuracy_by_hand(case):
    """The four films of the specification: IoU 0.6, IoU 0.2, a false box, nothing."""
    case.labels([[f"{k}.png", int(k < 2), 0, 0] for k in range(4)])
    case.references([[f"{k}.png", "Mass", 0, 0, 1, 0.5] for k in range(2)])
    widths = (0.6, 0.2, 0.3)
    case.boxes([[f"{k}.png", "Mass", 1, 0, 0, w, 0.5] for k, w in enumerate(widths)])
    assert case.run() == 0
    assert case.value("loc_acc@0.3", "Mass") == pytest.approx(0.4)
    assert case.value("loc_acc@0.1", "Mass") == pytest.approx(3 / 4)


def test_boxes_count_above_a_score(five):
    assert five.run("--keep_above=0.85") == 0
    assert five.value("loc_acc@0.3", "Mass") == pytest.approx(2 / 5)
    assert five.value("ap@0.3", "Mass") == pytest.approx(0.422442, abs=1e-6)
    assert five.result()["detection"]["keep_above"] == 0.85


CONFIG = """
from configs import common
def get_config():
    c = common.base()
    name = "cxr_jax.evaluators.detection.Detection"
    c.eval.evaluators += ({"name": name, "keep_above": 0.85, "boxed": ("Nodule",),
        "thresholds": (0.4, 0.6)},)
    c.report.published_boxes = (
        {"name": "Theirs", "source": "a paper", "split": "films", "values": {"map": 9.1}},
    )
    return c
VARIANTS = {}
"""


def test_a_config_says_how_boxes_are_judged_and_what_was_published(five, page, capsys):
    (five.root / "configs").mkdir()
    (five.root / "configs" / "mine.py").write_text(CONFIG)
    config = f"--config={five.root / 'configs' / 'mine.py'}"
    assert five.run(config) == 0
    block = five.result()["detection"]
    assert (block["keep_above"], block["boxed"]) == (0.85, ["Mass", "Nodule"])
    ours, theirs = page().split("As printed, not measured here")
    assert "9.10" in theirs and "9.10" not in ours
    assert "IoU 0.4 to 0.6" in page()
    assert "loc_acc@0.6: 0.400; without any box it is 0.200" in capsys.readouterr().out
    assert five.run(config, "--keep_above=0.1") == 0
    assert five.result()["detection"]["keep_above"] == 0.1


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def counted_ap(found, targets, threshold):
    """AP from lines of files, one film after another: a reference box per film."""
    found = sorted(found, key=lambda row: -row[2])
    true, precision, recall = 0, [], []
    for number, row in enumerate(found, start=1):
        true += any(t[0] == row[0] and iou(row[3:], t[2:]) > threshold for t in targets)
        precision.append(true / number)
        recall.append(true / len(targets))
    best = [
        max(
            (p for p, r in zip(precision, recall, strict=True) if r >= t / 100),
            default=0,
        )
        for t in range(101)
    ]
    return sum(best) / 101


def drawn(films=60, seed=0):
    """Lines of references and of boxes near them, at most one per film and class."""
    rng = np.random.default_rng(seed)
    references, boxes = [], []
    for k in range(films):
        for name in CLASSES[:2]:
            low = rng.uniform(0.1, 0.5, 2)
            box = np.concatenate([low, low + rng.uniform(0.2, 0.4, 2)])
            if there := rng.random() < 0.4:
                references.append([f"{k}.png", name, *box.tolist()])
            if rng.random() < (0.8 if there else 0.3):
                near = np.clip(box + rng.normal(0, 0.05, 4), 0, 1).tolist()
                boxes.append([f"{k}.png", name, round(rng.random(), 6), *near])
    return references, boxes


def test_figures_by_counting(case):
    references, boxes = drawn()
    labelled_films = {(row[0], row[1]) for row in references}
    names = [f"{k}.png" for k in range(60)]
    case.labels([[n, *(int((n, c) in labelled_films) for c in CLASSES)] for n in names])
    case.references(references)
    rng = np.random.default_rng(1)
    case.boxes([boxes[k] for k in rng.permutation(len(boxes))])
    assert case.run() == 0
    values = []
    for name in CLASSES[:2]:
        own = [[row for row in rows if row[1] == name] for rows in (boxes, references)]
        for threshold in IOU:
            want = counted_ap(*own, threshold)
            assert case.value(f"ap@{threshold:g}", name) == pytest.approx(want)
            values.append(want)
    assert 0.1 < np.mean(values) < 0.9
    assert case.value("map") == pytest.approx(np.mean(values))


def of_a_run(films=80, seed=0):
    """A table as a run leaves it: float32 boxes and patients."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0.1, 0.5, (films, 2, 2))
    xyxy = np.concatenate([low, low + 0.3], axis=2)
    near = np.clip(xyxy + rng.normal(0, 0.05, xyxy.shape), 0, 1)
    there = rng.random((films, 2)) < 0.4
    label = np.tile(np.arange(2, dtype=np.int32), (films, 1))
    labels = (there | (rng.random((films, 2)) < 0.1)).astype(np.float32)
    return Predictions(
        classes=CLASSES[:2],
        ids=np.array([f"{k:03d}.png" for k in range(films)]),
        patients=np.array([f"p{k // 3}" for k in range(films)]),
        studies=np.array([""] * films),
        index=np.arange(films),
        probs=labels,
        labels=labels,
        boxes=Boxes(
            xyxy=near.astype(np.float32),
            label=label,
            mask=there ^ (rng.random((films, 2)) < 0.2),
            score=rng.random((films, 2)).astype(np.float32),
        ),
        targets=Boxes(xyxy=xyxy.astype(np.float32), label=label, mask=there),
    )


def write_run(case, films):
    """Its ``boxes.csv``, and its references and labels as files."""
    text = box_files.format_boxes(films.ids, films.classes, films.boxes)
    (case.root / "boxes.csv").write_text(text)
    targets = dataclasses.replace(films.targets, score=films.boxes.score)
    text = box_files.format_boxes(films.ids, films.classes, targets)
    (case.root / "references.csv").write_text(text)
    rows = zip(films.ids, films.patients, *films.labels.T.astype(int), strict=True)
    case.labels(list(rows), ("id", "patient", *films.classes))


def test_the_boxes_of_a_run_score_the_same_again(case):
    films = of_a_run()
    want = plain(Detection(resamples=30, seed=2, keep_above=0.3)(films))
    write_run(case, films)
    assert case.run("--seed=2", "--keep_above=0.3", resamples=30) == 0
    result = case.result()
    assert result["detection"] == want["detection"]
    assert result["metrics"] == want["metrics"]
    assert result["metrics"]["map"]["mean"]["resampling_unit"] == "patient"
    # And once more, of what the score itself left.
    left = case.root / "out" / "evaluation" / "test" / "boxes.csv"
    (case.root / "boxes.csv").write_text(left.read_text())
    assert case.run("--seed=2", "--keep_above=0.3", resamples=30) == 0
    assert case.result()["metrics"] == want["metrics"]


def test_probabilities_and_boxes_are_scored_side_by_side(five):
    rows = [[f"f{k}.png", *(0.1 * (k + c) for c in range(3))] for k in range(5)]
    path = five.write("p.csv", ("id", *CLASSES), rows)
    assert five.run() == 0
    alone = five.result()
    assert five.run(f"--predictions={path}") == 0
    both = five.result()
    boxes = {k: v for k, v in both["metrics"].items() if k in alone["metrics"]}
    assert boxes == alone["metrics"] and both["detection"] == alone["detection"]
    assert both["metrics"]["auroc"]["per_class"]["Mass"]["value"] == 0
    folder = five.root / "out" / "evaluation" / "test"
    assert (folder / "predictions.csv").exists()
    about = json.loads((five.root / "out" / "config.json").read_text())
    assert about["report"]["title"] == "Score of p.csv and boxes.csv"
    assert both["scored"]["file"] == path
    assert both["scored"]["boxes"]["references"]["boxes"] == 4


def test_boxes_alone_leave_no_probabilities(five):
    assert five.run() == 0
    folder = five.root / "out" / "evaluation" / "test"
    assert {p.name for p in folder.iterdir()} == {
        *("boxes.csv", "curves.json", "predictions.txt", "result.json")
    }
    said = (folder / "predictions.txt").read_text()
    assert "Research use only" in said and "robabilities" not in said
    assert "auroc" not in five.result()["metrics"]


def test_the_page_shows_boxes_and_claims_nothing_else(five, page):
    assert five.run(resamples=20) == 0
    text = page()
    assert "Score of boxes.csv" in text and "Boxes of findings" in text
    _, card = text.split("Mean AP of boxes ×100, against reference boxes")
    assert ">42.2<" in card[:80] and "No boxes" in text
    assert "1 of the 5 films have a label of these classes that nobody boxed" in text
    assert "boxes of boxes.csv, SHA-256" in text
    assert "AUROC per class" not in text and "ROC and reliability" not in text
    rows = [[f"f{k}.png", *(0.1 * (k + c) for c in range(3))] for k in range(5)]
    path = five.write("p.csv", ("id", *CLASSES), rows)
    assert five.run(f"--predictions={path}") == 0
    text = page()
    assert "AUROC per class" in text and "Boxes of findings" in text
    assert "predictions of p.csv, SHA-256" in text


# --- where reference boxes come from --------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A dataset of 24 films in three parts, whose records hold boxes."""
    from data_builders import packing

    class Builder(packing.Packed, skip_registration=True):
        name = "boxed"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="8px"),)

        def layout(self):
            return packing.Layout(size=8, classes=("Fibrosis", "Nodule", "Mass"))

        def films(self):
            rng = np.random.default_rng(0)
            for k in range(24):
                low = rng.uniform(0, 0.5, (k % 3, 2))
                yield packing.Film(
                    id=f"{k:03d}.png",
                    image=np.zeros((8, 8), np.uint8),
                    labels=np.array([0, 1, k % 3 > 0]),
                    patient=f"p{k // 2}",
                    boxes=np.concatenate([low, low + 0.3], axis=1),
                    box_label=np.full(k % 3, 2),
                    splits={"patient_disjoint": ("train", "val", "test")[k // 8]},
                )

    root = tmp_path_factory.mktemp("boxed")
    Builder(data_dir=root, config="8px").download_and_prepare(
        file_format="array_record"
    )
    return root


def of_records(prepared):
    """Source, and the boxes of all its films as lines of a file of references."""
    rng = np.random.default_rng(0)
    lines = []
    for k in range(24):
        low = rng.uniform(0, 0.5, (k % 3, 2))
        boxes = np.concatenate([low, low + 0.3], axis=1).astype(np.float32)
        lines += [[f"{k:03d}.png", "Mass", *map(float, box)] for box in boxes]
    return labelled.read_source("boxed/8px", data_dir=str(prepared)), lines


def test_records_hold_references_and_tell_where_boxes_usually_are(
    case, prepared, monkeypatch
):
    monkeypatch.setattr(source, "CHUNK", 3)
    _, lines = of_records(prepared)
    test = [row for row in lines if int(row[0][:3]) >= 16]
    case.boxes([[*row[:2], 0.5, *row[2:]] for row in test])
    flags = ["--labels=boxed/8px", f"--data_dir={prepared}"]
    flags += ["--split=patient_disjoint/test"]
    assert case.run(*flags) == 0
    result = case.result()
    assert case.value("map", "Mass") == 1 and result["n"] == 8
    assert result["detection"]["reference"] == {"Mass": len(test), "Nodule": 0}
    val = [row[2:] for row in lines if 8 <= int(row[0][:3]) < 16]
    usual = result["frozen"][USUAL]["Mass"]
    np.testing.assert_allclose(usual, np.mean(val, axis=0), rtol=1e-6)
    rows = result["detection"]["rows"]
    assert list(rows) == ["no boxes", "mean box of the validation part"]
    # Of the validation part itself there is none.
    case.boxes([[f"{8 + k:03d}.png", "Mass", 0.5, *WHERE] for k in range(4)])
    assert case.run(*flags[:-1], "--split=patient_disjoint/val") == 0
    folder = case.root / "out" / "evaluation" / "val"
    rows = json.loads((folder / "result.json").read_text())["detection"]["rows"]
    assert list(rows) == ["no boxes"]


def test_a_run_chosen_on_these_films_is_refused(case, prepared, capsys):
    """It learnt from another dataset, but was chosen on a part of this one."""
    labels, lines = of_records(prepared)
    split = parts.take_part(labels, "patient_disjoint/val").passport
    run = case.root / "run"
    run.mkdir()
    told = {"dataset": "other/8px", "evaluation": split}
    (run / "split.json").write_text(json.dumps(told))
    (run / "config.json").write_text(json.dumps({"data": {"split_seed": 0}}))
    case.boxes(
        [[*row[:2], 0.5, *row[2:]] for row in lines if 8 <= int(row[0][:3]) < 16]
    )
    flags = ["--labels=boxed/8px", f"--data_dir={prepared}", f"--trained_on={run}"]
    val, test = (f"--split=patient_disjoint/{part}" for part in ("val", "test"))
    assert case.run(*flags, val) == 2
    assert "8 are films of this run's val part" in capsys.readouterr().err
    assert case.run(*flags, test, "--allow_extra") == 2  # No box is of that part.
    assert "none of its" in capsys.readouterr().err
    case.boxes([["020.png", "Mass", 0.5, *WHERE]])
    assert case.run(*flags, test) == 0
    assert any("No film and no patient" in note for note in case.result()["notes"])
    # Without its validation films nobody can tell.
    split["parts"]["val"]["sha256"] = "another"
    (run / "split.json").write_text(json.dumps(told))
    assert case.run(*flags, test) == 0
    assert trained_on.NOT_DRAWN in case.result()["notes"]


def test_films_that_boxes_were_learnt_from_are_refused(five, capsys):
    (five.root / "train.txt").write_text("f1.png\n")
    flag = f"--trained_on={five.root / 'train.txt'}"
    assert five.run(flag) == 2
    assert "1 are films of this run's train part" in capsys.readouterr().err
    assert five.run(flag, "--allow_seen") == 0
    assert any(note.startswith("LEAKS") for note in five.result()["notes"])


# --- refusals -------------------------------------------------------------------------


def line_2(text):
    return ["id,class,score,x1,y1,x2,y2", text]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (line_2("f0.png,Fibrosis,0.5,0,0,1,1"), "line 2: class is 'Fibrosis'; allowed"),
        (line_2("f0.png,Mass,1.5,0,0,1,1"), "line 2: score is '1.5'"),
        (line_2("f0.png,Mass,0.5,0,0,512,1"), "line 2: x2 is '512'"),
        (line_2("f0.png,Mass,0.5,0.5,0,0.5,1"), "line 2: the box"),
        (line_2("f0.png,Mass,0,5,0,0,1,1"), "line 2: 8 cells"),
        (["id,class,x1,y1,x2,y2"], "line 1: score is no column"),
        (
            [*line_2("f0.png,Mass,0.5,0,0,1,1"), "x.png,Mass,0.5,0,0,1,1"],
            "1 of its 2 films are not of part test, such as x.png (--allow_extra",
        ),
    ],
)
def test_wrong_boxes_are_refused_in_one_line(five, capsys, lines, problem):
    (five.root / "boxes.csv").write_text("\n".join(lines) + "\n")
    assert five.run() == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert problem in shown.err and not shown.out
    assert not (five.root / "out").exists()


def test_boxes_left_out_on_demand_are_counted(five):
    text = (five.root / "boxes.csv").read_text()
    (five.root / "boxes.csv").write_text(text + "x.png,Mass,0.9,0,0,1,1\n")
    assert five.run("--allow_extra") == 0
    result = five.result()
    assert five.value("ap@0.3", "Mass") == pytest.approx(0.422442, abs=1e-6)
    assert result["scored"]["boxes"]["extra"] == 1
    assert any("1 films with predicted boxes are not of" in n for n in result["notes"])
    five.boxes([["f0.png", "Mass", 0.9, *WHERE], ["f0.png", "Nodule", 0.9, *WHERE]])
    assert five.run("--classes=Mass") == 0
    assert five.result()["scored"]["boxes"]["left_out"] == 1
    assert five.result()["detection"]["boxed"] == ["Mass"]


@pytest.mark.parametrize(
    ("drop", "more", "problem"),
    [
        (
            "--boxes",
            [],
            "nothing to score: give --predictions=P.csv, --boxes=F.csv, or",
        ),
        (
            "--reference",
            [],
            "no reference boxes are given; reference boxes are those of",
        ),
        ("", ["--classes=Fibrosis"], "Fibrosis is no class that has boxes"),
        ("", ["--compare=q.csv"], "--compare goes with --predictions, which"),
        ("", ["--mean_classes=Mass"], "--mean_classes goes with --predictions"),
        ("", ["--keep_above=70"], "--keep_above=70: a score in [0, 1] is allowed"),
        ("--boxes", ["--predictions=p.csv"], "--reference_boxes goes with --boxes"),
        ("", ["--boxes=nowhere.csv"], "nowhere.csv: cannot be read"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(five, capsys, drop, more, problem):
    flags = [f for f in five.flags(*more) if not drop or not f.startswith(drop)]
    assert score.main(flags) == 2
    shown = capsys.readouterr()
    assert problem in shown.err and shown.err.count("\n") == 1
    assert not (five.root / "out").exists()


def test_references_that_do_not_fit_are_refused(five, capsys, prepared):
    five.references([["f0.png", "Mass", *WHERE], ["x.png", "Mass", *WHERE]])
    assert five.run() == 2
    assert "line 3: film x.png is not among the labels of" in capsys.readouterr().err
    flags = ["--labels=boxed/8px", f"--data_dir={prepared}"]
    assert five.run(*flags, "--split=patient_disjoint/test") == 2
    assert "brings boxes of its own" in capsys.readouterr().err
    five.references([["f0.png", "Nodule", *WHERE]])
    assert five.run("--classes=Mass") == 2
    assert "none of the 5 films" in capsys.readouterr().err


def test_labels_without_a_class_that_has_boxes_are_refused(case, capsys):
    case.labels([["f0.png", 1]], ("id", "Fibrosis"))
    case.boxes([])
    assert case.run() == 2
    assert "labels none of the classes that have boxes" in capsys.readouterr().err


# --- the real list --------------------------------------------------------------------


READ_ONCE = functools.cache(labelled.read_source)  # 112,120 lines


@pytest.fixture
def real(case, real_dir, monkeypatch):
    """The command on the release's tables, and the lines of its list."""
    monkeypatch.setattr(score.labelled, "read_source", READ_ONCE)
    folder = real_dir / "nih"
    with gzip.open(folder / "labels" / "BBox_List_2017.csv.gz", "rt") as file:
        rows = list(csv.reader(file))[1:]
    lines = []
    for name, label, *numbers in (row[:6] for row in rows):
        x, y, width, height = map(float, numbers)
        corners = [c / 1024 for c in (x, y, x + width, y + height)]
        lines.append([name, label.replace("Infiltrate", "Infiltration"), 0.5, *corners])

    def run(split, *more):
        flags = ["--labels=chestxray14", f"--manual_dir={folder}", f"--split={split}"]
        return case.run(*flags, *more)

    return run, lines


def test_the_list_itself_scores_one(case, real, capsys):
    run, lines = real
    case.boxes(lines)
    assert run("cxr8/test") == 0
    result = case.result()
    assert result["n"] == 880 and len(lines) == 984
    assert sum(result["detection"]["reference"].values()) == 984
    assert list(result["detection"]["reference"]) == list(CXR8)
    for block in result["metrics"].values():
        assert block["mean"]["value"] == 1 and len(block["mean"]["classes"]) == 8
    assert result["detection"]["unboxed"] == 521
    assert "521 of 880 films have a label of these classes that nobody boxed" in (
        capsys.readouterr().out
    )
    # Of a half, films of the other half are not.
    assert run("cxr8_halves/test") == 2
    assert "films are not of part test" in capsys.readouterr().err


def test_no_box_at_all_is_as_accurate_as_published(case, real):
    run, _ = real
    case.boxes([])
    assert run("cxr8/test") == 0
    for threshold in IOU:
        assert case.value(f"ap@{threshold:g}") == 0
        assert round(case.value(f"loc_acc@{threshold:g}"), 3) == 0.860
    assert case.value("map") == 0
    result = case.result()
    assert result["scored"]["boxes"]["films_without"] == 880
    assert result["frozen"] is None and list(result["detection"]["rows"]) == [
        "no boxes"
    ]


def test_halves_are_drawn_by_seed_and_know_the_usual_box(case, real):
    run, lines = real
    case.boxes(lines)
    digests = set()
    for seed in (0, 1):
        flags = (f"--split_seed={seed}", "--allow_extra")
        assert run("cxr8_halves/test", *flags) == 0
        result = case.result()
        assert 430 <= result["n"] <= 450 and case.value("map") == 1
        assert result["scored"]["boxes"]["extra"] == 880 - result["n"]
        assert set(result["frozen"][USUAL]) == set(CXR8)
        usual = result["detection"]["rows"]["mean box of the validation part"]
        assert 0 < usual["map"] < 0.3
        digests.add(result["split_sha256"])
    assert len(digests) == 2


def test_it_is_said_that_there_is_no_box_at_all():
    nothing = {"metrics": {}, "detection": {"predicted": {"Mass": 0}}, "notes": []}
    found = nothing | {"detection": {"predicted": {"Mass": 0, "Nodule": 1}}}
    told = results.headline({"val": found, "test": nothing})
    assert told == "test: no box was found on any film"
    about = {"films": 3, "boxes": 4, "file": "references.csv"}
    passport = {"films": 0, "films_without": 5, "extra": 0, "left_out": 0}
    said = box_scoring.remarks(passport | {"references": about})
    assert said[1:] == ["No box at all: a file whose writing failed looks the same."]
    assert len(box_scoring.remarks(passport | {"films": 1, "references": about})) == 1
