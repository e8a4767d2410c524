"""The sections on boxes: what they say is what was measured, and failures are shown."""

import dataclasses
import html
import io
import pathlib
import re
import statistics
import tempfile

import numpy as np
import pytest
from PIL import Image

from cxr_jax import box_samples
from cxr_jax.data import box_files
from cxr_jax.evaluators.base import plain
from cxr_jax.evaluators.detection import Detection
from cxr_jax.pages import box_gallery, box_methods, detection
from cxr_jax.pages.evidence import Evidence
from cxr_jax.predictions import Predictions
from cxr_jax.types import Batch, Boxes

CLASSES = ("Mass", "Nodule", "Pneumonia")


def table(films=60, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.normal(0.5, 0.1, (films, 3, 2))
    xyxy = np.concatenate([centre - 0.12, centre + 0.12], axis=2)
    there = rng.random((films, 3)) < (0.4, 0.3, 0.0)
    said = there ^ (rng.random(there.shape) < 0.2)
    label, zeros = np.tile(np.arange(3), (films, 1)), np.zeros((films, 3), np.float32)
    off = 0.03 * rng.normal(size=xyxy.shape)
    return Predictions(
        classes=CLASSES,
        ids=np.array([f"{k:03d}.png" for k in range(films)]),
        patients=np.array([f"p{k // 2}" for k in range(films)]),
        studies=np.array([""] * films),
        index=np.arange(films),
        probs=zeros + 0.5,
        labels=zeros,
        boxes=Boxes(
            xyxy=xyxy + off, label=label, mask=said, score=rng.random((films, 3))
        ),
        targets=Boxes(xyxy=xyxy, label=label, mask=there),
    )


def evidence(films, *, name="run", dataset="phantom_chest/small", digest="", **given):
    evaluator = Detection(resamples=40, keep_above=0.3, **given)
    found = plain(evaluator(films, evaluator.freeze(table(seed=1))))
    main = {"n": len(films), "dataset": dataset, "split_sha256": digest, **found}
    row = {"map": 10.89, "ap@0.1": 19.99, "loc_acc@0.1": 0.85}
    published = {
        "name": "Loc-ADPD",
        "source": "a paper",
        "split": "films of theirs",
        "values": row,
    }
    return Evidence(
        config={"report": {"published_boxes": [published]}},
        passport={},
        lines=(),
        results={"test": main},
        curves={},
        samples=None,
        name=name,
        boxes=collect(films),
    )


def collect(films):
    def load(index):
        image = np.zeros((len(index), 32, 32, 1), np.uint8)
        return Batch(image=image, labels=None, mask=None, position=None, index=index)

    return box_samples.collect(films, load=load)


def test_figures_stand_beside_chance_and_papers_stand_apart():
    found = evidence(table())
    page = detection.section(found)
    means = found.main["metrics"]["map"]["mean"]
    assert f"{100 * means['value']:.1f} [{100 * means['low']:.1f}" in page
    for words in ("No boxes", "Mean box of the validation part", "class alone"):
        assert words in page
    ours, papers = page.split("As printed, not measured here")
    assert "10.89" in papers and "10.89" not in ours
    assert "Boxes count above a score of 0.3" in page
    assert page.count("data:image/") == 1 + len(found.boxes.ids)


def test_runs_stand_side_by_side():
    first, second = (evidence(table(seed=s), name=n) for s, n in ((0, "A"), (2, "B")))
    page = detection.section(first, second)
    assert "<td>A</td>" in page and "<td>B</td>" in page
    bare = dataclasses.replace(first, results={"test": {"n": 1, "dataset": "x"}})
    assert detection.section(bare) == ""
    # On a terminal: each run, and chance once.
    title, *told = box_methods.text(first, bare, second).splitlines()
    assert title == "Mean AP of boxes ×100"
    assert [line.split()[0] for line in told] == ["A", "B", "No", "Mean", "No", "Mean"]
    for run, line in zip((first, second), told, strict=False):
        value = run.main["metrics"]["map"]["mean"]["value"]
        assert line.split()[1] == f"{100 * value:.1f}"
    assert box_methods.text(bare) == ""


def tables_of(page):
    """Caption → first cell → further cells, of every table."""
    found = {}
    for text in re.findall(r"<table>(.*?)</table>", page, re.DOTALL):
        caption = re.search(r"<caption>(.*?)</caption>", text)
        rows = [
            [
                html.unescape(re.sub("<.*?>", "", c))
                for c in re.findall("<td.*?</td>", r)
            ]
            for r in re.findall("<tr>.*?</tr>", text)
        ]
        name = html.unescape(caption.group(1)) if caption else ""
        found[name] = {row[0]: row[1:] for row in rows if row}
    return found


def only(found, start):
    """The one table whose caption begins so."""
    (rows,) = (rows for name, rows in found.items() if name.startswith(start))
    return rows


def seeded(run, *, seed=0, split=0, scheme="cxr8_halves"):
    data = {"dataset": "d", "scheme": scheme, "split_seed": split}
    return dataclasses.replace(run, config=run.config | {"data": data, "seed": seed})


def mean_and_sd(values, times=100):
    digits = 1 if times == 100 else 3
    mean, sd = statistics.mean(values), statistics.stdev(values)
    return f"{times * mean:.{digits}f} ± {times * sd:.{digits}f}"


def of_means(run, metric="map"):
    return run.main["metrics"][metric]["mean"]["value"]


def test_runs_on_other_films_bring_their_own_chance():
    """Three halves, each judged twice: six runs, three times chance, their means."""
    runs = []
    for half in range(3):
        run = evidence(table(60 + half, seed=half), digest=f"half {half}")
        for seed in range(2):
            named = dataclasses.replace(run, name=f"{half}/{seed}")
            runs.append(seeded(named, seed=seed, split=half))
    found = tables_of(detection.section(*runs))
    (caption,) = (name for name in found if "Means over" in name)
    assert (
        "of different films: 60 films (0/0, 0/1), 61 films (1/0, 1/1), 62 films"
        in caption
    )
    rows = found[caption]
    same = "0/0: mean ± sd of 6 runs, other training seeds and halves (data.split_seed)"
    assert rows[same][0] == mean_and_sd([of_means(run) for run in runs])
    usual = "Mean box of the validation part"
    for name, key in (("No boxes", "no boxes"), (usual, usual.lower())):
        chance = [
            run.main["detection"]["rows"][key.replace("Mean", "mean")] for run in runs
        ]
        for half in range(3):
            own = rows[f"{name} ({half}/0, {half}/1)"]
            assert own[0] == f"{100 * chance[2 * half]['map']:.1f}"
            assert own[-1] == f"{chance[2 * half]['loc_acc@0.5']:.3f}"
        # Each half once, however often it was judged.
        told = rows[f"{name}: mean ± sd of 3 halves (data.split_seed)"]
        assert told[0] == mean_and_sd([row["map"] for row in chance[::2]])
        assert told[-1] == mean_and_sd([row["loc_acc@0.5"] for row in chance[::2]], 1)
    boxed = only(found, "Computed films. The same on films with a box of the class")
    for run in runs:
        mean = run.main["detection"]["restricted_metrics"]["map"]["mean"]
        assert boxed[run.name][0].startswith(f"{100 * mean['value']:.1f} [")
    for told in (rows, boxed):
        assert sum(name.startswith("No boxes") for name in told) == 3 + 1
    told = [row["restricted"]["map"] for row in chance[::2]]
    assert boxed[f"{usual}: mean ± sd of 3 halves (data.split_seed)"][0] == mean_and_sd(
        told
    )


def test_runs_that_differ_in_training_seeds_share_their_chance():
    run = evidence(table())
    other = evidence(table(), name="other")
    other.main["metrics"]["map"]["mean"]["value"] += 0.1
    runs = [seeded(run, seed=0), seeded(other, seed=1)]
    found = only(tables_of(detection.section(*runs)), "Computed films. Means over")
    told = found["run: mean ± sd of 2 runs, other training seeds"]
    assert told[0] == mean_and_sd([of_means(run) for run in runs])
    assert list(found).count("No boxes") == 1 and "halves" not in " ".join(found)
    same = tables_of(detection.section(seeded(run), seeded(other)))
    assert "mean ± sd" not in str(same)
    assert "2 runs, other splits (data.split_seed)" in str(
        tables_of(
            detection.section(
                seeded(run, scheme="x"), seeded(other, split=1, scheme="x")
            )
        )
    )
    far = dataclasses.replace(runs[1], config=runs[1].config | {"task": {"size": 1}})
    assert "mean ± sd" not in detection.section(runs[0], far)


@pytest.mark.parametrize("first", [0, 1])
def test_computed_films_stand_apart(first):
    runs = [
        evidence(table(), name="computed"),
        evidence(table(seed=2), name="real", dataset="chestxray14/1.0.0", digest="x"),
    ]
    found = tables_of(detection.section(runs[first], runs[1 - first]))
    shown = [rows for name, rows in found.items() if "Means over" in name]
    named = [[n for n in ("computed", "real") if n in rows] for rows in shown]
    assert named == [[runs[first].name], [runs[1 - first].name]]
    assert all("No boxes" in rows for rows in shown)


def test_every_table_has_rows_of_chance():
    run = evidence(table())
    found = tables_of(detection.section(run))
    rows = run.main["detection"]["rows"]
    usual = rows["mean box of the validation part"]
    starts = [
        "Means over",
        "The same on films",
        "Per class; AP",
        "Per class, films with",
        "Share of reference",
    ]
    for start in (*starts, "Localisation accuracy by the share"):
        table_rows = only(found, start)
        for row in ("No boxes", "Mean box of the validation part"):
            assert any(name.startswith(row) for name in table_rows), (start, row)
        if start not in starts[:2]:
            assert set(CLASSES) | {"Mean"} <= set(table_rows)
    told = only(found, "Localisation accuracy by the share")
    own = [f"{v:.2f}" for v in [*usual["iobb"], usual["false_per_film"][2]]]
    assert told["Mean box of the validation part"] == own
    assert told["No boxes"][-1] == "0.00" and told["No boxes"][0] != "0.00"
    iobb = run.main["detection"]["iobb"]
    mean = iobb["accuracy_mean"]
    three = [mean[end][2] for end in ("value", "low", "high")]
    assert told["Mean"][2] == "{:.2f} [{:.2f}, {:.2f}]".format(*three)
    told = only(found, "Share of reference")
    assert told["Mean box of the validation part"] == [
        f"{v:.2f}" for v in usual["froc"]["0.3"]
    ]
    low = run.main["detection"]["froc"]["sensitivity_interval"]["low"]["Mass"]["0.3"]
    assert f"[{low[3]:.2f}, " in told["Mass"][3]
    told = only(found, "Per class; AP")
    assert told["No boxes"][7] == f"{rows['no boxes']['loc_acc@0.3']:.3f}"
    told = only(found, "Per class, films with")
    value = 100 * usual["restricted"]["map"]
    assert told["Mean box of the validation part"][0] == f"{value:.1f}"


@pytest.mark.parametrize(
    ("thresholds", "heads"), [((0.2, 0.3), ["0.3"]), ((0.4, 0.6, 0.8), ["0.4", "0.8"])]
)
def test_other_overlaps_are_shown_as_they_are(thresholds, heads):
    run = evidence(table(), thresholds=thresholds)
    page = detection.section(run)
    for head in heads:
        assert f"<th>AP\n{head}</th>" in page and f"<th>loc-acc\n{head}</th>" in page
    assert "<th>AP\n0.1</th>" not in page.split("As printed")[0]
    assert f"IoU {thresholds[0]} to {thresholds[-1]}" in page
    beside = detection.section(evidence(table(), name="usual"), run)
    assert f"run (mAP over IoU {thresholds[0]} to {thresholds[-1]})" in beside


def test_it_is_said_that_boxes_chose_the_weights():
    said = "were chosen by mAP on the boxes of the validation part"
    run, other = (evidence(table(), name=name) for name in "AB")
    assert said not in detection.section(run, other)
    chose = run.config | {"checkpoint": {"metric": "map"}}
    run = dataclasses.replace(run, config=chose)
    assert f"The weights {said}" in detection.section(run)
    assert f"The weights of A {said}" in detection.section(run, other)


def test_without_any_reference_box_the_page_is_written():
    films = table()
    none = dataclasses.replace(films.targets, mask=np.zeros_like(films.targets.mask))
    page = detection.section(evidence(dataclasses.replace(films, targets=none)))
    assert "No curves: there is no reference box" in page
    assert "undefined: no reference box" in page


def test_a_result_of_before_is_shown_without_intervals():
    run = evidence(table())
    block = run.main["detection"]
    mean = block["restricted"]["map"]
    del block["restricted_metrics"]
    for name in ("froc", "iobb"):
        for key in [k for k in block[name] if k.endswith(("_interval", "_mean"))]:
            del block[name][key]
    for row in block["rows"].values():
        for key in ("restricted", "froc", "iobb", "false_per_film"):
            del row[key]
    found = tables_of(detection.section(run))
    assert only(found, "The same on films")["This run"][0] == f"{100 * mean:.1f}"
    assert "No boxes" in only(found, "Means over")


def test_films_are_chosen_by_a_rule_that_shows_failures():
    films = table()
    samples = collect(films)
    assert set(samples.classes) == {"Mass", "Nodule"}
    for name in ("Mass", "Nodule"):
        own = samples.classes == name
        assert samples.kinds[own].tolist() == [
            box_samples.FOUND,
            box_samples.LEAST,
            box_samples.ALARM,
        ]
        found, least, alarm = np.flatnonzero(own)
        assert samples.overlaps[least] <= samples.overlaps[found]
        assert np.isnan(samples.overlaps[alarm])
        assert samples.verdicts[[least, alarm]].tolist() == ["Missed", "False alarm"]
        c = CLASSES.index(name)
        free = films.boxes.mask[:, c] & ~films.targets.mask[:, c]
        assert samples.scores[alarm] == films.boxes.score[free, c].max()


def test_samples_are_read_as_written(tmp_path):
    samples = collect(table())
    box_samples.write(tmp_path, samples)
    again = box_samples.read(tmp_path)
    for name, array in vars(samples).items():
        np.testing.assert_array_equal(getattr(again, name), array)
    box_samples.write(tmp_path, None)
    assert box_samples.read(tmp_path) is None


@pytest.mark.parametrize("solid", [True, False])
def test_predicted_boxes_are_solid_and_reference_boxes_dashed(solid):
    box, none = np.array([[0.25, 0.25, 0.75, 0.75]]), np.full((1, 4), np.nan)
    film = np.zeros((32, 32), np.uint8)
    found, true = (box, none) if solid else (none, box)
    image = Image.open(io.BytesIO(box_gallery.draw(film, {"": found}, true)))
    assert image.text["Description"].startswith("Research use only")
    side = box_gallery.SIDE
    row = np.asarray(image)[round(0.25 * (side - 1)), :side].any(axis=1)
    inside = row[round(0.3 * side) : round(0.7 * side)]
    assert inside.all() == solid and inside.any()


def test_boxes_of_two_runs_are_drawn_on_the_same_film():
    boxes = {
        "A": np.array([[0.1, 0.1, 0.4, 0.4]]),
        "B": np.array([[0.6, 0.6, 0.9, 0.9]]),
    }
    none, film = np.zeros((0, 4)), np.zeros((32, 32), np.uint8)
    page = np.asarray(Image.open(io.BytesIO(box_gallery.draw(film, boxes, none))), int)
    side, top = box_gallery.SIDE, 2 * box_gallery.STRIP
    for place, (x1, y1, x2, y2) in enumerate(box[0] for box in boxes.values()):
        left = place * (side + box_gallery.GAP)
        own = page[top : top + side, left : left + side].any(axis=2)
        ys, xs = np.nonzero(own)
        found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / side
        np.testing.assert_allclose(found, [x1, y1, x2, y2], atol=2 / side)


def test_only_runs_on_the_same_films_are_drawn_beside():
    films = table()
    inside = dataclasses.replace(films.boxes, xyxy=films.boxes.xyxy.clip(0, 1))
    text = box_files.format_boxes(films.ids, CLASSES, inside)
    first = _judged(evidence(films, name="A"), "same", text)
    for digest, count in (("same", 1), ("other", 0)):
        second = _judged(evidence(table(seed=2), name="B"), digest, text)
        page = detection.section(first, second)
        assert page.count("The films are those of A.") == count


def _judged(run, digest, text):
    """A run on films of that digest, whose boxes are those of a file."""
    result = {**run.main, "split_sha256": digest}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "boxes.csv"
        path.write_text(text)
        found = box_files.read_boxes(path, classes=CLASSES)
    return dataclasses.replace(run, results={"test": result}, found=found)
