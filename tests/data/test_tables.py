"""Released tables: the exact published counts, every oddity, every refusal by line."""

import collections
import gzip

import numpy as np
import pytest

from cxr_jax.data import tables
from cxr_jax.errors import DataError
from cxr_jax.labels import CXR8, NIH14

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROW = "00000001_000.png,Mass|Edema,0,1,{age},M,PA,2682,2749,0.143,0.143"
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def write(tmp_path, *lines, end="\n", encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


def entry(tmp_path, **cells):
    row = ROW.format(age=cells.pop("age", "58"))
    return tables.read_entries(write(tmp_path, HEADER, row))["00000001_000.png"]


def test_one_row(tmp_path):
    got = entry(tmp_path)
    assert got == tables.Entry(
        image="00000001_000.png",
        findings=frozenset({"Mass", "Edema"}),
        patient="00000001",
        follow_up=0,
        age=58,
        sex="M",
        view="PA",
    )
    assert got.labels.dtype == np.float32
    assert [n for n, v in zip(NIH14, got.labels, strict=True) if v] == ["Mass", "Edema"]


@pytest.mark.parametrize(
    "text, age",
    [
        ("0", 0),
        ("100", 100),
        ("101", None),
        ("148", None),
        ("414", None),
        ("058Y", 58),
        ("011M", 0),
        ("030M", 2),
        ("003D", 0),
    ],
)
def test_ages_as_released(tmp_path, text, age):
    assert entry(tmp_path, age=text).age == age


def test_header_of_2017_ends_with_one_comma_more(tmp_path):
    row = ROW.format(age=58)
    plain = tables.read_entries(write(tmp_path, HEADER, row))
    for header, line in [(HEADER + ",", row), (HEADER + ",", row + ",")]:
        assert tables.read_entries(write(tmp_path, header, line)) == plain


def test_byte_order_mark_windows_lines_blank_lines_and_gzip(tmp_path):
    row = ROW.format(age=58)
    plain = tables.read_entries(write(tmp_path, HEADER, row))
    odd = write(tmp_path, HEADER, row, "", end="\r\n", encoding="utf-8-sig")
    assert tables.read_entries(odd) == plain
    packed = tmp_path / "table.csv.gz"
    packed.write_bytes(gzip.compress(odd.read_bytes()))
    assert tables.read_entries(packed) == plain


def test_similar_names_are_told_apart(tmp_path):
    row = ROW.format(age=58).replace("Mass|Edema", "Pneumonia")
    got = tables.read_entries(write(tmp_path, HEADER, row))["00000001_000.png"]
    assert got.findings == {"Pneumonia"}


GOOD = ROW.format(age=58)


@pytest.mark.parametrize(
    "lines, words",
    [
        ([], "header"),
        (["Path,Sex,Age"], "line 1: the header is 'Path,Sex,Age'"),
        ([HEADER + ",Extra", GOOD], "line 1: the header"),
        ([HEADER], "no row"),
        ([HEADER, GOOD, GOOD], "line 3: film 00000001_000.png is there twice"),
        ([HEADER, "a.png,Mass"], "line 2: 2 cells"),
        ([HEADER, GOOD.replace("Edema", "Oedema")], "line 2: finding 'Oedema'.*Hernia"),
        ([HEADER, GOOD.replace("|Edema", "|")], "line 2: finding ''"),
        ([HEADER, GOOD.replace("Edema", "No Finding")], "line 2.*alone"),
        ([HEADER, GOOD.replace(",1,", ",one,")], "line 2: 'Patient ID' is 'one'"),
        ([HEADER, GOOD.replace(",58,", ",-5,")], "line 2: 'Patient Age' is '-5'"),
        ([HEADER, GOOD.replace(",58,", ",,")], "line 2: 'Patient Age' is ''"),
        ([HEADER, GOOD.replace(",M,", ",X,")], "line 2: 'Patient Gender' is 'X'"),
        ([HEADER, GOOD.replace(",PA,", ",LL,")], "line 2: 'View Position' is 'LL'"),
        ([HEADER, GOOD.replace("00000001_000.png", "")], "line 2: no file name"),
    ],
)
def test_bad_label_tables_name_file_and_line(tmp_path, lines, words):
    path = write(tmp_path, *lines)
    with pytest.raises(DataError, match=words) as caught:
        tables.read_entries(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"\x1f\x8b damaged", b"\xff\xfe\x00\x01"])
def test_damaged_tables_are_one_line(tmp_path, data):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DataError, match=r"t\.csv: damaged"):
        tables.read_entries(tmp_path / "t.csv")


def test_an_absent_table_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        tables.read_entries(tmp_path / "none.csv")


def test_boxes_become_fractions_of_the_frame(tmp_path):
    path = write(tmp_path, BOX_HEADER, "a.png,Infiltrate,256,512,128,64")
    (box,) = tables.read_boxes(path)
    assert box.label == "Infiltration"
    assert box.xyxy == (0.25, 0.5, 0.375, 0.5625)


@pytest.mark.parametrize(
    "row, words",
    [
        ("a.png,Hernia,1,1,1,1", "line 2: label 'Hernia' is unknown.*Infiltrate"),
        ("a.png,Mass,1,1,x,1", "line 2.*four numbers"),
        ("a.png,Mass,1,1,nan,1", "line 2.*leaves the frame or is empty"),
        ("a.png,Mass,-1,1,1,1", "line 2.*leaves the frame"),
        ("a.png,Mass,1000,1,25,1", "line 2.*leaves the frame"),
        ("a.png,Mass,1,1,0,1", "line 2.*empty"),
        ("a.png,Mass,1,1", "line 2: 4 cells"),
    ],
)
def test_bad_boxes_name_the_line(tmp_path, row, words):
    with pytest.raises(DataError, match=words):
        tables.read_boxes(write(tmp_path, BOX_HEADER, row))


def test_lists_with_and_without_labels(tmp_path):
    plain = tables.read_list(write(tmp_path, "b.png", "a.png", ""))
    assert plain.names == ("b.png", "a.png") and plain.labels is None
    flags = ["0"] * 13 + ["1"]
    with_labels = tables.read_list(write(tmp_path, " ".join(["b.png", *flags])))
    assert with_labels.labels.tolist() == [[0] * 13 + [1]]


@pytest.mark.parametrize(
    "lines, words",
    [
        ([""], "names no film"),
        (["a.png", "b.png", "a.png"], "line 3: film a.png is also in line 1"),
        (["a.png 1 0"], "line 1: 'a.png 1 0'"),
        (["a.png" + " 2" * 14], "line 1"),
        (["a.png" + " 1" * 14, "b.png"], "all or none"),
    ],
)
def test_bad_lists_name_the_line(tmp_path, lines, words):
    with pytest.raises(DataError, match=words):
        tables.read_list(write(tmp_path, *lines))


@pytest.fixture(scope="module")
def entries(real_dir):
    folder = real_dir / "nih" / "labels"
    return tables.read_entries(folder / "Data_Entry_2017_v2020.csv.gz")


@pytest.fixture(scope="module")
def boxes(real_dir):
    return tables.read_boxes(real_dir / "nih" / "labels" / "BBox_List_2017.csv.gz")


# Counts of the release, as published with it.
FINDINGS = {
    "Infiltration": 19_894,
    "Effusion": 13_317,
    "Atelectasis": 11_559,
    "Nodule": 6_331,
    "Mass": 5_782,
    "Pneumothorax": 5_302,
    "Consolidation": 4_667,
    "Pleural_Thickening": 3_385,
    "Cardiomegaly": 2_776,
    "Emphysema": 2_516,
    "Edema": 2_303,
    "Fibrosis": 1_686,
    "Pneumonia": 1_431,
    "Hernia": 227,
}
BOXES = {
    "Atelectasis": 180,
    "Effusion": 153,
    "Cardiomegaly": 146,
    "Infiltration": 123,
    "Pneumonia": 120,
    "Pneumothorax": 98,
    "Mass": 85,
    "Nodule": 79,
}
MEDIAN_AREAS = {
    "Cardiomegaly": 0.171,
    "Infiltration": 0.057,
    "Pneumonia": 0.057,
    "Effusion": 0.056,
    "Pneumothorax": 0.036,
    "Atelectasis": 0.019,
    "Mass": 0.015,
    "Nodule": 0.0046,
}


def test_the_real_table_to_the_last_film(entries):
    rows = list(entries.values())
    assert len(rows) == 112_120
    assert len({row.patient for row in rows}) == 30_805
    assert all(row.image.startswith(row.patient) for row in rows)
    assert collections.Counter(r.view for r in rows) == {"PA": 67_310, "AP": 44_810}
    assert collections.Counter(r.sex for r in rows) == {"M": 63_340, "F": 48_780}
    assert sum(len(row.findings) > 1 for row in rows) == 20_796
    assert sum(not row.findings for row in rows) == 60_361
    counts = collections.Counter(name for row in rows for name in row.findings)
    assert counts == FINDINGS
    ages = [row.age for row in rows]
    assert None not in ages and (min(ages), max(ages)) == (0, 95)
    assert rows[0].age == 57
    labels = np.stack([row.labels for row in rows])
    assert labels.sum(0).tolist() == [FINDINGS[name] for name in NIH14]


def test_the_real_boxes_to_the_last_one(entries, boxes):
    assert len(boxes) == 984
    per_film = collections.Counter(box.image for box in boxes)
    assert len(per_film) == 880
    assert len({entries[image].patient for image in per_film}) == 726
    assert collections.Counter(per_film.values()) == {1: 787, 2: 83, 3: 9, 4: 1}
    assert collections.Counter(box.label for box in boxes) == BOXES
    assert len({(box.image, box.label) for box in boxes}) == 984
    assert all(box.label in entries[box.image].findings for box in boxes)
    xyxy = np.array([box.xyxy for box in boxes])
    assert xyxy.min() >= 0 and xyxy.max() <= 1


def test_findings_without_a_box_are_not_absent(entries, boxes):
    boxed = collections.defaultdict(set)
    for box in boxes:
        boxed[box.image].add(box.label)
    more = [i for i, names in boxed.items() if entries[i].findings & {*CXR8} - names]
    assert len(more) == 521


def test_real_box_areas(boxes):
    areas = collections.defaultdict(list)
    for box in boxes:
        x1, y1, x2, y2 = box.xyxy
        areas[box.label].append((x2 - x1) * (y2 - y1))
    for name, expected in MEDIAN_AREAS.items():
        digits = 4 if name == "Nodule" else 3
        assert round(float(np.median(areas[name])), digits) == expected


def test_real_lists(real_dir, entries):
    sizes, patients, names, differ = {}, {}, [], 0
    for part in ("train", "val", "test"):
        file = real_dir / "nih" / "splits" / f"patient_disjoint_{part}.txt.gz"
        listed = tables.read_list(file)
        sizes[part] = len(listed.names)
        patients[part] = {entries[name].patient for name in listed.names}
        names += listed.names
        table = np.stack([entries[name].labels for name in listed.names])
        differ += int((table != listed.labels).any(axis=1).sum())
    assert sizes == {"train": 78_468, "val": 11_219, "test": 22_433}
    assert {p: len(who) for p, who in patients.items()} == {
        "train": 21_528,
        "val": 3_090,
        "test": 6_187,
    }
    assert len(set.union(*patients.values())) == 30_805  # So no patient is in two.
    assert set(names) == set(entries) and len(names) == 112_120
    assert differ == 181  # The lists carry the labels of 2017, the table those of 2020.
