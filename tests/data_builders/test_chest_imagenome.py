"""Chest ImaGenome from fabricated releases: every oddity, hand-made boxes and labels."""

import csv
import gzip
import io
import json
import os
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cxr_jax.data import manifest as manifests
from cxr_jax.data import records as tables
from cxr_jax.data import source, splits
from cxr_jax.errors import DataError
from cxr_jax.labels import IMAGENOME_FINDINGS, REGIONS29
from data_builders import __main__ as command
from data_builders import build, reduction
from data_builders.chest_imagenome import chest_imagenome_dataset_builder as builder
from data_builders.chest_imagenome import graphs
from data_builders.chest_imagenome.release import read_release

# Case → patient, view, height and width, part of MIMIC-CXR-JPG, part of Chest ImaGenome.
CASES = {
    "square": (10000001, "PA", (80, 80), "train", "train"),
    "wide": (10000001, "AP", (80, 121), "train", "train"),
    "tall": (10000002, "PA", (121, 80), "validate", "test"),
    "odd": (10000003, "PA", (96, 90), "test", ""),
    "five": (10000004, "AP", (100, 90), "train", "valid"),
    "tested": (10000005, "PA", (80, 80), "test", "train"),
    "trained": (10000006, "PA", (80, 80), "train", "train"),
    "gold": (10000007, "PA", (80, 80), "train", ""),
    "avoided": (10000008, "PA", (80, 80), "train", ""),
    "twice": (10000009, "PA", (80, 80), "train", "train"),
    "few": (10000010, "AP", (80, 80), "train", "train"),
    "side": (10000011, "PA", (80, 80), "train", "train"),
    "graphless": (10000012, "PA", (80, 80), "train", "train"),
    "lateral": (10000001, "LATERAL", (80, 80), "train", ""),
    "blank": (10000002, "", None, "validate", ""),
    "partless": (10000013, "PA", (80, 80), None, "train"),
    "unlabelled": (10000014, "PA", (80, 80), "train", "train"),
}
LEFT_OUT = {
    "trained": "ms_cxr",
    "gold": "gold",
    "avoided": "to_avoid",
    "twice": "duplicated_boxes",
    "few": "few_boxes",
    "side": "viewpoint",
    "graphless": "no_scene_graph",
    "lateral": "not_frontal",
    "blank": "not_frontal",
    "partless": "no_part",
    "unlabelled": "no_chexpert",
    "stranger": "unlisted",
}
USED = [name for name in CASES if name not in LEFT_OUT]
PLAIN = {
    "right lung": (8, 10, 40, 70),
    "left lung": (50, 10, 76, 70),
    "spine": (40, 5, 50, 80),
    "trachea": (42, 2, 48, 20),
    "cardiac silhouette": (30, 40, 60, 75),
    "right cardiophrenic angle": (25, 60, 35, 70),
}
# Pixels of the source, by hand; a square of 80 is cut at 20 from the left.
WIDE = PLAIN | {"left lung": (90, 10, 130, 70), "trachea": (0, 2, 20, 20)}
TALL = PLAIN | {"trachea": (42, 2, 48, 30), "spine": (40, -4, 50, 121)}
SAID = {
    "right lung": [
        [
            "anatomicalfinding|yes|lung opacity",
            "anatomicalfinding|no|pneumothorax",
            "nlp|yes|abnormal",
        ],
        ["anatomicalfinding|no|lung opacity", "tubesandlines|yes|chest tube"],
    ],
    "left lung": [["disease|yes|pneumonia"], ["anatomicalfinding|no|hernia"]],
}
ODD = {
    "spine": [["anatomicalfinding|yes|subdiaphragmatic air"]],
    "carina": [["anatomicalfinding|yes|hernia"]],
    "left chest wall": [
        ["anatomicalfinding|yes|rib fracture", "anatomicalfinding|yes|hernia"]
    ],
    "abdomen": [
        ["disease|yes|lung opacity", "anatomicalfinding|yes|green lung"],
        ["anatomicalfinding|yes|green lung", "anatomicalfinding|maybe|hernia"],
        ["pneumothorax", "a|yes|b|c", None],
        "anatomicalfinding|yes|cyst/bullae",
    ],
}


def dicom(case: str) -> str:
    digits = case.encode().hex().ljust(40, "0")[:40]
    return "-".join(digits[k : k + 8] for k in range(0, 40, 8))


def box(name: str, corners, **more) -> dict:
    """An object as the release writes it; only ``original_*`` are of the film."""
    keys = ("x1", "y1", "x2", "y2")
    original = {f"original_{k}": v for k, v in zip(keys, corners, strict=True)}
    frame = {"x1": 1, "y1": 1, "x2": 9, "y2": 9, "width": 8, "height": 8}
    return {"object_id": name, "bbox_name": name, **frame, **original, **more}


def attribute(name: str, sentences: list) -> dict:
    return {name: True, "bbox_name": name, "attributes": sentences, "phrases": []}


def graph_of(case: str) -> dict:
    patient, view, *_ = CASES.get(case, (10000099, "PA"))
    boxes = {"wide": WIDE, "tall": TALL}.get(case, PLAIN)
    objects = [box(name, corners) for name, corners in boxes.items()]
    if case == "odd":
        objects += [
            box("aortic arch", (1, 1, 9, 9), width=-1),
            box("mediastinum", (1, 1, 9, 9), height=0),
            box("svc", (200, 1, 240, 9)),
            box("upper mediastinum", (9, 1, 9, 9)),
            box("abdomen", (1, None, 9, 9)),
            box("carina", (float("nan"), 1, 9, 9)),
            {"bbox_name": "left clavicle"},
            "nothing",
        ]
        objects[2] = box("spine", (-5, -3, 50, 80))
    if case == "five":  # Names of other places count, too.
        objects = objects[:1] + [box(f"place {k}", (1, 1, 9, 9)) for k in range(4)]
    if case == "few":
        objects = objects[:4] + [box("svc", (1, 1, 9, 9), width=-8)]
    if case == "twice":
        objects.append(box("spine", (30, 1, 45, 60)))
    said = SAID | ODD if case == "odd" else SAID
    return {
        "image_id": dicom(case),
        "patient_id": patient,
        "study_id": study(case),
        "viewpoint": "LATERAL" if case == "side" else view,
        "gender": "F" if case != "tall" else "unknown",
        "objects": objects,
        "attributes": [attribute(name, lists) for name, lists in said.items()],
        "relationships": [],
    }


def study(case: str) -> int:
    return 50000000 + [*CASES, "stranger"].index(case)


class Releases:
    """Three releases below one folder: seventeen films, five of which are used."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.silver = root / "chest-imagenome-dataset-1.0.0" / "silver_dataset"
        self.mimic = root / "physionet.org" / "files" / "mimic-cxr-jpg" / "2.0.0"
        self.graphs = {
            case: graph_of(case)
            for case in [*CASES, "stranger"]
            if case not in ("graphless", "lateral", "blank")
        }
        for case, (_, _, shape, *_) in CASES.items():
            path = self.film(case)
            path.parent.mkdir(parents=True, exist_ok=True)
            if shape:
                Image.fromarray(self.pixels(case)).save(path, quality=95)
        self.write_mimic()
        self.write_lists()
        self.write_graphs()

    @staticmethod
    def pixels(case: str) -> np.ndarray:
        rng = np.random.default_rng([*case.encode()])
        rough = rng.integers(0, 256, [n // 8 + 1 for n in CASES[case][2]])
        large = np.kron(rough, np.ones((8, 8))).astype(np.uint8)
        return np.ascontiguousarray(large[: CASES[case][2][0], : CASES[case][2][1]])

    def film(self, case: str) -> pathlib.Path:
        folder = f"p{str(CASES[case][0])[:2]}/p{CASES[case][0]}/s{study(case)}"
        return self.mimic / "files" / folder / f"{dicom(case)}.jpg"

    def write_mimic(self) -> None:
        metadata = [
            (
                "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,"
                "ViewPosition,Rows,Columns,StudyDate"
            )
        ]
        split = ["dicom_id,study_id,subject_id,split"]
        chexpert = ["subject_id,study_id,Atelectasis,Pneumonia"]
        for case, (patient, view, shape, part, _) in CASES.items():
            rows, columns = shape or ("", "")
            metadata.append(
                f'{dicom(case)},{patient},{study(case)},"CHEST (PA, LAT)",{view},'
                f"{rows},{columns},21800506"
            )
            if part:
                split.append(f"{dicom(case)},{study(case)},{patient},{part}")
            if case != "unlabelled":
                chexpert.append(f"{patient},{study(case)},1.0,")
        for kind, lines in {
            "metadata": metadata,
            "split": split,
            "chexpert": chexpert,
        }.items():
            text = "\n".join(lines) + "\n"
            path = self.mimic / f"mimic-cxr-2.0.0-{kind}.csv.gz"
            path.write_bytes(gzip.compress(text.encode()))

    def write_lists(self, *, index: bool = True) -> None:
        header = "subject_id,study_id,dicom_id,path,ViewPosition"
        listed = {"train": [], "valid": [], "test": []}
        for case, (patient, view, *_, part) in CASES.items():
            row = (
                f"{patient},{study(case)},{dicom(case)},files/{dicom(case)}.dcm,{view}"
            )
            if part:
                listed[part].append(row)
        if index:
            for part, rows in listed.items():
                listed[part] = [f"{k},{row}" for k, row in enumerate(rows)]
        folder = self.silver / "splits"
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in listed.items():
            lines = [("," if index else "") + header, *rows]
            (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
        avoided = [
            f"10000001,{study(case)},{dicom(case)},files/x.dcm,PA"
            for case in ("avoided", "gold", "lateral")
        ]
        text = "\n".join([header, *avoided]) + "\n"
        (folder / "images_to_avoid.csv").write_text(text)
        gold = self.silver.parent / "gold_dataset"
        gold.mkdir(exist_ok=True)
        (gold / "gold_object_attribute_with_coordinates.txt").write_text(
            f'patient_id\timage_id\tsentence\n1\t{dicom("gold")}.dcm\ta "quote\n'
        )
        (gold / "auto_bbox_pipeline_coordinates.txt").write_text("a\tb\n1\t2\n")
        (self.root / "ms-cxr").mkdir(exist_ok=True)
        (self.root / "ms-cxr" / "MS_CXR_Local_Alignment_v1.1.0.csv").write_text(
            "dicom_id,category_name,label_text,path,x,y,w,h\n"
            + "".join(
                f'{dicom(case)},Edema,"a, b",files/x.jpg,1,2,3,4\n'
                for case in ("trained", "tested", "tested")
            )
        )

    def write_graphs(self, *, nested: bool = False, folder: bool = False) -> None:
        for old in (self.silver / "scene_graph", self.silver / "scene_graph.zip"):
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        inner = "scene_graph/scene_graph/" if nested else "scene_graph/"
        files = {
            f"{inner}{dicom(case)}_SceneGraph.json": json.dumps(graph)
            for case, graph in self.graphs.items()
        }
        files[f"{inner}._{dicom('odd')}_SceneGraph.json"] = "\0\5\26\7"
        if folder:
            (self.silver / inner).mkdir(parents=True)
            for name, text in files.items():
                (self.silver / name).write_text(text)
            return
        with zipfile.ZipFile(self.silver / "scene_graph.zip", "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
            archive.writestr("__MACOSX/._x_SceneGraph.json", "\0\5\26\7")

    def make(self, data_dir, config: str = "64px", **options) -> pathlib.Path:
        options = {"num_shards": 2, "manual_dir": str(self.root), **options}
        return build(f"chest_imagenome/{config}", data_dir=data_dir, **options)

    def run(self, capsys, data_dir, *more, config: str = "64px") -> tuple[int, str]:
        """Exit code of the command, and all that it said; no traceback."""
        where = f"--manual_dir={self.root}", f"--data_dir={data_dir}", "--workers=0"
        code = command.main([f"chest_imagenome/{config}", *where, *more])
        said = capsys.readouterr().err.strip()
        assert "Traceback" not in said
        return code, said

    def edit(self, kind: str, change) -> None:
        path = self.mimic / f"mimic-cxr-2.0.0-{kind}.csv.gz"
        text = gzip.decompress(path.read_bytes()).decode()
        path.write_bytes(gzip.compress(change(text).encode()))


@pytest.fixture
def releases(tmp_path) -> Releases:
    return Releases(tmp_path / "raw")


def rows_of(folder) -> dict[str, dict]:
    rows = tfds.builder_from_directory(str(folder)).as_data_source("all")
    return {rows[k]["id"].decode(): rows[k] for k in range(len(rows))}


def digests(folder) -> list[str]:
    return [shard.sha256 for shard in manifests.read_manifest(folder).shards]


def quarantine(path) -> dict[str, str]:
    with open(path, newline="") as file:
        return {row["image"]: row["code"] for row in csv.DictReader(file)}


def area_mean(film: np.ndarray, new: int) -> np.ndarray:
    def overlap(old):
        edges = np.arange(new + 1) * old / new
        low = np.maximum(edges[:-1, None], np.arange(old))
        high = np.minimum(edges[1:, None], np.arange(old) + 1)
        return np.clip(high - low, 0, None) * new / old

    return overlap(film.shape[0]) @ film.astype(np.float64) @ overlap(film.shape[1]).T


def named(row, region: str) -> np.ndarray:
    return row["regions"]["xyxy"][REGIONS29.index(region)]


def present(row) -> set[str]:
    return {REGIONS29[k] for k in np.flatnonzero(row["regions"]["presence"])}


def findings(row) -> set[str]:
    return {IMAGENOME_FINDINGS[k] for k in np.flatnonzero(row["labels"])}


def of_regions(row) -> set[tuple[str, str]]:
    found = zip(*np.nonzero(row["regions"]["labels"]), strict=True)
    return {(REGIONS29[r], IMAGENOME_FINDINGS[f]) for r, f in found}


def test_the_films_that_can_be_used_are_built(releases, tmp_path):
    folder = releases.make(tmp_path / "data")
    rows = rows_of(folder)
    assert [*rows] == [dicom(case) for case in USED] and len(rows) == 6
    for case in USED:
        film = np.asarray(Image.open(releases.film(case)))
        side = min(film.shape)
        top, left = ((n - side) // 2 for n in film.shape)
        middle = film[top : top + side, left : left + side]
        row = rows[dicom(case)]
        np.testing.assert_allclose(
            row["image"][..., 0], area_mean(middle, 64), atol=0.51, err_msg=case
        )
        assert row["patient"].decode() == str(CASES[case][0])
        assert row["study"].decode() == str(study(case))
        assert len(row["boxes"]["label"]) == 0
    records = tables.read_records(folder)
    assert records.classes == IMAGENOME_FINDINGS
    assert records.view.tolist() == [CASES[case][1] for case in USED]
    assert records.sex.tolist() == ["F", "F", "", "F", "F", "F"]
    assert np.isnan(records.age).all()


def test_boxes_follow_the_film(releases, tmp_path):
    rows = rows_of(releases.make(tmp_path / "data"))
    square, wide, tall, odd, five = (
        rows[dicom(c)] for c in ("square", "wide", "tall", "odd", "five")
    )
    five_regions = {*PLAIN} - {"right cardiophrenic angle"}
    assert present(square) == five_regions
    np.testing.assert_allclose(named(square, "right lung"), [0.1, 0.125, 0.5, 0.875])
    np.testing.assert_array_equal(named(square, "carina"), 0)
    # 121 wide: 20 pixels are cut on the left, 21 on the right.
    assert present(wide) == five_regions - {"trachea"}
    np.testing.assert_allclose(named(wide, "right lung"), [0, 0.125, 0.25, 0.875])
    np.testing.assert_allclose(named(wide, "left lung"), [0.875, 0.125, 1, 0.875])
    np.testing.assert_array_equal(named(wide, "trachea"), 0)
    # 121 high: 20 at the top, 21 at the bottom.
    np.testing.assert_allclose(named(tall, "trachea"), [0.525, 0, 0.6, 0.125])
    np.testing.assert_allclose(named(tall, "spine"), [0.5, 0, 0.625, 1])
    # 96 x 90: a square of 90, cut at 3 from the top.
    assert present(odd) == five_regions
    np.testing.assert_allclose(named(odd, "spine"), [0, 0, 50 / 90, 77 / 90])
    assert present(five) == {"right lung"}
    for row in rows.values():
        xyxy, there = row["regions"]["xyxy"], row["regions"]["presence"] > 0
        assert xyxy.min() >= 0 and xyxy.max() <= 1 and not xyxy[~there].any()
        assert (xyxy[there, 2:] > xyxy[there, :2]).all()


def test_findings_of_regions_and_of_films(releases, tmp_path):
    rows = rows_of(releases.make(tmp_path / "data"))
    said = {("right lung", "lung opacity"), ("left lung", "pneumonia")}
    for case in USED:
        row = rows[dicom(case)]
        if case != "odd":
            assert of_regions(row) == said
            assert findings(row) == {"lung opacity", "pneumonia"}
    odd = rows[dicom("odd")]
    assert of_regions(odd) == said | {
        ("spine", "sub-diaphragmatic air"),
        ("carina", "hernia"),  # It has no box, and is absent.
        ("abdomen", "cyst/bullae"),
    }
    assert findings(odd) == {
        "lung opacity",
        "pneumonia",
        "sub-diaphragmatic air",
        "hernia",
        "rib fracture",  # Of a place that is none of the 29.
        "cyst/bullae",
    }


def test_batches_hold_regions(releases, tmp_path):
    dataset = source.open_dataset(str(releases.make(tmp_path / "data")))
    reader = source.Reader(dataset, source.Fields(regions=True, max_boxes=1))
    fields = reader.read(np.arange(6))
    regions = fields["regions"]
    assert regions.xyxy.shape == (6, 29, 4) and regions.probs.shape == (6, 29, 53)
    assert np.asarray(regions.presence).sum() == 25
    assert fields["labels"].sum(axis=1).tolist() == [2, 2, 2, 6, 2, 2]


def test_nothing_is_left_out_in_silence(releases, tmp_path, capsys):
    data = tmp_path / "data"
    code, said = releases.run(capsys, data)
    assert code == 0
    folder = data / "chest_imagenome" / "64px" / "1.0.0"
    listed = {dicom(case): code for case, code in LEFT_OUT.items()}
    assert quarantine(folder / "quarantine.csv") == listed
    extra = manifests.verify_digests(folder).extra
    assert sum(extra["left_out"].values()) == len(LEFT_OUT)
    assert extra["left_out"]["not_frontal"] == 2
    assert extra["films_in_table"] == 17 and extra["films_in_gold"] == 1
    assert extra["films_in_ms_cxr"] == 2
    # Nine graphs are read: six of the films used, and of "twice", "few", "side".
    found = extra["scene_graphs"]
    assert found == {
        "read": 9,
        "boxes": {
            # Six each of square, tested, side; five of wide; five of tall, whose spine
            # is clipped; five of odd; five of five; six of twice; four of few.
            "whole": 18 + 5 + 5 + 5 + 5 + 6 + 4,
            "clipped": 3,
            "duplicated": 1,
            "negative": 2,
            "empty": 1,
            "outside": 2,
            "malformed": 4,
        },
        "boxes_elsewhere": {
            **{f"place {k}": 1 for k in range(4)},
            "right cardiophrenic angle": 7,
        },
        "statements": {
            "affirmed": 2 * 9 + 5,
            "denied": 3 * 9,
            "malformed": 4,
            "of_other_categories": 2 * 9,
            "of_regions_without_box": 1 + 2,  # Left lung of five; carina, abdomen.
            "of_unknown_findings": 3,
        },
        "statements_elsewhere": {"left chest wall": 2},
        "unknown_findings": {
            "anatomicalfinding|green lung": 2,
            "disease|lung opacity": 1,
        },
    }
    assert extra["boxes_of_regions"] == {"of_regions": 5 * 4 + 4 + 1, "cut_away": 1}
    for words in ("9 read", "2 negative", "1 duplicated", "2 not_frontal", "1 gold"):
        assert words in said
    assert "11 boxes_elsewhere, 2 statements_elsewhere, 3 unknown_findings" in said


def test_both_splits_come_with_the_records(releases, tmp_path):
    folder = releases.make(tmp_path / "data")
    records = tables.read_records(folder)
    assert [*records.splits] == ["released", "imagenome"]
    official = ["train", "train", "val", "test", "train", "test"]
    assert records.splits["released"].tolist() == official
    # The sixth is of MS-CXR: it may be tested on, and nothing else.
    silver = ["train", "train", "test", "", "val", ""]
    assert records.splits["imagenome"].tolist() == silver
    for scheme in ("released", "imagenome"):
        got = splits.split_records(records, scheme, dataset="d", version="1")
        assert got.passport["patient_overlap"] == 0
    extra = manifests.read_manifest(folder).extra
    assert extra["films_by_part"]["released"] == {"train": 3, "val": 1, "test": 2}
    assert extra["films_in_lists"]["imagenome"] == {"train": 10, "val": 1, "test": 1}
    assert not extra["train_as_published"]


def test_configs_keep_what_the_default_leaves_out(releases, tmp_path):
    data = tmp_path / "data"
    kept = tables.read_records(releases.make(data, "64px_with_ms_cxr"))
    assert {*kept.id} == {dicom(c) for c in [*USED, "trained"]}
    tested = kept.splits["imagenome"][kept.id == dicom("tested")]
    assert tested.tolist() == ["train"]
    gold = tables.read_records(releases.make(data, "64px_with_gold"))
    assert {*gold.id} == {dicom(c) for c in [*USED, "gold", "avoided"]}
    more = ["trained", "gold", "avoided", "twice"]
    (releases.silver / "splits" / "images_to_avoid.csv").unlink()
    shutil.rmtree(releases.root / "ms-cxr")
    rows = rows_of(releases.make(data, "64px_all"))
    assert {*rows} == {dicom(c) for c in [*USED, *more]}
    # (40, 5, 50, 80) and (30, 1, 45, 60) of 80.
    union = named(rows[dicom("twice")], "spine")
    np.testing.assert_allclose(union, np.array([30, 1, 50, 80]) / 80)
    names = {config.name for config in builder.Builder.BUILDER_CONFIGS}
    assert {"256px", "224px_all", "512px_with_ms_cxr"} <= names


def nested_archive(releases):
    releases.write_graphs(nested=True)


def folder_of_graphs(releases):
    releases.write_graphs(folder=True)


def nested_folder(releases):
    releases.write_graphs(folder=True, nested=True)


def archive_beside_a_torn_folder(releases):
    (releases.silver / "scene_graph").mkdir()
    (releases.silver / "scene_graph" / f"{dicom('odd')}_SceneGraph.json").write_text(
        "{"
    )


def no_row_numbers(releases):
    releases.write_lists(index=False)
    path = releases.silver / "splits" / "images_to_avoid.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{k or ''},{line}" for k, line in enumerate(lines)))


def plain_tables(releases):
    """Unpacked beside the archives, of version 2.1.0; only one of them has both."""
    for path in sorted(releases.mimic.glob("*.csv.gz")):
        name = path.name.removesuffix(".gz").replace("2.0.0", "2.1.0")
        (releases.mimic / name).write_bytes(gzip.decompress(path.read_bytes()))
        if "split" in path.name:
            path.rename(releases.mimic / f"{name}.gz")
        else:
            path.unlink()
    (releases.mimic / "mimic-cxr-2.1.0-test-set-labeled.csv").write_text(
        "study_id\n1\n"
    )


def numbers_of_pandas(releases):
    releases.edit("chexpert", lambda text: text.replace(",5", ".0,5"))


def all_in_one_folder(releases):
    for path in (*releases.mimic.iterdir(), *(releases.root / "ms-cxr").iterdir()):
        path.rename(releases.root / path.name)
    releases.silver.rename(releases.root / "silver_dataset")
    (releases.root / "chest-imagenome-dataset-1.0.0" / "gold_dataset").rename(
        releases.root / "gold_dataset"
    )


LAYOUTS = [
    nested_archive,
    folder_of_graphs,
    nested_folder,
    archive_beside_a_torn_folder,
    no_row_numbers,
    plain_tables,
    numbers_of_pandas,
    all_in_one_folder,
]


def said_by(releases) -> tuple:
    """Everything but pixels, in a form that can be compared."""
    found = read_release(str(releases.root), without=builder.VARIANTS[""])
    where = graphs.Source(path=found.places.graphs)
    read = {}
    for e in found.entries.values():
        member = found.graphs[e.id]
        job = graphs.Job(id=e.id, member=member, height=e.height, width=e.width)
        graph = where.read(job)
        read[e.id] = (graph.xyxy.tolist(), graph.said.tolist(), graph.counts)
        assert (found.places.films / e.file).is_file()
    return dict(found.entries), dict(found.refused), read, found.gold, found.ms_cxr


@pytest.mark.parametrize("change", LAYOUTS)
def test_every_layout_is_read_alike(releases, change):
    before = said_by(releases)
    change(releases)
    assert said_by(releases) == before


def test_every_layout_and_number_of_workers_gives_the_same_shards(releases, tmp_path):
    several = releases.make(tmp_path / "two", workers=2)
    nested_folder(releases)
    no_row_numbers(releases)
    plain_tables(releases)
    alone = releases.make(tmp_path / "one", workers=0)
    assert digests(several) == digests(alone)
    for name in ("records.csv", "quarantine.csv"):
        assert (several / name).read_bytes() == (alone / name).read_bytes()


def test_films_are_not_reduced_twice(releases, tmp_path):
    data = tmp_path / "data"
    expected = digests(releases.make(data))
    shutil.rmtree(data / "chest_imagenome")
    for case in USED:
        path = releases.film(case)
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests(releases.make(data)) == expected


def test_films_elsewhere_are_named(releases, tmp_path):
    (releases.mimic / "files").rename(releases.root / "films")
    folder = releases.make(tmp_path / "data", images="films")
    assert len(tables.read_records(folder)) == len(USED)
    with pytest.raises(DataError, match="images 'nowhere': no such folder"):
        read_release(str(releases.root), images="nowhere", without=())


def test_absent_films_are_refused_or_listed(releases, tmp_path, capsys):
    releases.film("wide").unlink()
    releases.film("lateral").unlink()  # Nobody asks for it.
    data = tmp_path / "data"
    code, said = releases.run(capsys, data)
    line = said.splitlines()[-1]
    assert code == 2 and "1 films cannot be used (1 absent)" in line
    assert dicom("wide") in line and "--allow_missing" in line
    assert not list(data.rglob("manifest.json"))
    listed = data / "chest_imagenome-64px.quarantine.csv"
    assert quarantine(listed)[dicom("wide")] == "absent"
    code, said = releases.run(capsys, data, "--allow_missing")
    assert code == 0, said
    folder = data / "chest_imagenome" / "64px" / "1.0.0"
    assert manifests.read_manifest(folder).extra["left_out"]["absent"] == 1
    assert manifests.verify_digests(folder).records == len(USED) - 1
    assert not listed.exists()


def test_absent_and_bad_films_and_graphs_are_listed_in_one_go(
    releases, tmp_path, capsys
):
    releases.film("wide").unlink()
    releases.film("square").write_bytes(b"")
    releases.write_graphs(folder=True)
    graph = f"scene_graph/{dicom('odd')}_SceneGraph.json"
    (releases.silver / graph).write_text("{")
    data = tmp_path / "data"
    code, said = releases.run(capsys, data)
    line = said.splitlines()[-1]
    assert code == 2 and "3 films cannot be used" in line, line
    assert (
        f"1 films are absent, such as {dicom('wide')}" in said
    )  # Before they are read.
    assert "--allow_missing --max_bad_fraction=" in line
    listed = quarantine(data / "chest_imagenome-64px.quarantine.csv")
    for case, why in (("wide", "absent"), ("square", "empty"), ("odd", "graph")):
        assert listed[dicom(case)] == why
    *_, share = line.partition("--max_bad_fraction=")
    options = "--allow_missing", f"--max_bad_fraction={share.split()[0]}"
    code, said = releases.run(capsys, data, *options)
    assert code == 0, said


def test_bad_films_and_films_of_another_shape_are_refused_or_listed(
    releases, tmp_path, capsys
):
    path = releases.film("square")
    path.write_bytes(path.read_bytes()[:-20])
    small = Image.fromarray(releases.pixels("wide")).resize((242, 160))
    small.save(releases.film("wide"))
    data = tmp_path / "data"
    code, said = releases.run(capsys, data)
    line = said.splitlines()[-1]
    assert code == 2 and "1 truncated, 1 shape" in line
    assert "--max_bad_fraction=0.3334" in line
    code, said = releases.run(capsys, data, "--max_bad_fraction=0.3334")
    assert code == 0, said
    folder = data / "chest_imagenome" / "64px" / "1.0.0"
    with open(folder / "quarantine.csv", newline="") as file:
        reasons = {row["image"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons[dicom("wide")] == ("242 x 160 pixels, but the metadata has 121 x 80")
    assert manifests.read_manifest(folder).extra["left_out"]["truncated"] == 1


BAD_GRAPHS = {
    "no JSON": "{",
    "no object": "[]",
    "no boxes": '{"image_id": "x", "attributes": []}',
    "boxes no list": '{"image_id": "x", "objects": {}, "attributes": []}',
    "another film": '{"image_id": "x", "objects": [], "attributes": []}',
    "deep": "[" * 100_000,
    "not text": b"\xff\xfe\0",
}


@pytest.mark.parametrize("content", BAD_GRAPHS.values(), ids=BAD_GRAPHS)
@pytest.mark.parametrize("folder", [True, False])
def test_a_bad_scene_graph_is_refused_by_name(releases, content, folder):
    releases.write_graphs(folder=folder)
    member = f"scene_graph/{dicom('odd')}_SceneGraph.json"
    data = content if isinstance(content, bytes) else content.encode()
    if folder:
        (releases.silver / member).write_bytes(data)
        member = member.partition("/")[2]
        where = graphs.Source(path=releases.silver / "scene_graph")
    else:
        with zipfile.ZipFile(releases.silver / "scene_graph.zip", "w") as archive:
            archive.writestr(member, data)
        where = graphs.Source(path=releases.silver / "scene_graph.zip")
    job = graphs.Job(id=dicom("odd"), member=member, height=96, width=90)
    got = where.read(job)
    assert isinstance(got, reduction.Refused) and got.code == "graph"
    assert dicom("odd") in got.reason and "\n" not in got.reason


def test_bad_scene_graphs_are_refused_or_listed(releases, tmp_path, capsys):
    path = releases.silver / "scene_graph.zip"
    content = path.read_bytes()
    where = content.index(b'"objects"')  # Of the first, "square": its checksum is off.
    path.write_bytes(content[:where] + b"X" + content[where + 1 :])
    data = tmp_path / "data"
    code, said = releases.run(capsys, data)
    line = said.splitlines()[-1]
    assert code == 2 and "1 films cannot be used (1 graph)" in line
    assert dicom("square") in line and "--max_bad_fraction=0.1112" in line
    code, said = releases.run(capsys, data, "--max_bad_fraction=0.1112")
    assert code == 0, said
    folder = data / "chest_imagenome" / "64px" / "1.0.0"
    assert quarantine(folder / "quarantine.csv")[dicom("square")] == "graph"
    assert dicom("square") not in tables.read_records(folder).id


def test_an_enormous_number_is_no_box():
    huge = box("spine", (10**400, 1, 9, 9))
    content = {"image_id": "x", "objects": [huge], "attributes": []}
    job = graphs.Job(id="x", member="m", height=9, width=9)
    assert graphs.parse(content, job).counts == {("boxes", "malformed"): 1}


@pytest.mark.parametrize("seed", range(20))
def test_a_drawn_rectangle_lies_where_its_box_says(tmp_path, seed):
    """Boxes follow the film within one pixel, whatever its shape."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(70, 400, 2)
    x, y = (np.sort(rng.choice(n, 2, replace=False)) for n in (width, height))
    film = np.zeros((height, width), np.uint8)
    film[y[0] : y[1], x[0] : x[1]] = 255
    Image.fromarray(film).save(tmp_path / "film.png")
    how = {"dataset": "d", "size": 64, "fit": "crop"}
    cache = reduction.open_cache(tmp_path, **how)
    image = cache.load(cache.reduce(str(tmp_path / "film.png")).key)
    corners = [int(n) for n in (x[0], y[0], x[1], y[1])]
    content = {"image_id": "x", "objects": [box("spine", corners)], "attributes": []}
    job = graphs.Job(id="x", member="m", height=int(height), width=int(width))
    graph = graphs.parse(content, job)
    regions = builder._regions(graph, (int(height), int(width)))
    seen = np.argwhere(image > 0)
    k = REGIONS29.index("spine")
    assert regions.presence[k] >= bool(len(seen)) and regions.presence.sum() <= 1
    if len(seen):
        low, high = seen.min(0)[::-1], seen.max(0)[::-1] + 1
        got = regions.xyxy[k] * 64
        np.testing.assert_allclose(got, [*low, *high], atol=1)


def test_names_are_those_of_the_released_lists():
    assert len(graphs.FINDINGS) == 53 + 1  # One is spelled in two ways.
    assert [len(names) for names in graphs.CATEGORIES.values()] == [43, 10]
    assert graphs.CATEGORIES["disease"][0] == "pneumonia"
    assert graphs.CATEGORIES["anatomicalfinding"][-1] == "clavicle fracture"
    assert "lung opacity" not in graphs.CATEGORIES["disease"]


def no_folder(releases):
    shutil.rmtree(releases.root)


def no_graphs(releases):
    (releases.silver / "scene_graph.zip").unlink()


def empty_graphs(releases):
    no_graphs(releases)
    (releases.silver / "scene_graph").mkdir()


def torn_archive(releases):
    path = releases.silver / "scene_graph.zip"
    path.write_bytes(path.read_bytes()[:-40])


def graph_twice(releases):
    with zipfile.ZipFile(releases.silver / "scene_graph.zip", "a") as archive:
        archive.writestr(f"{dicom('odd')}_SceneGraph.json", "{}")


def two_releases(releases):
    shutil.copytree(releases.silver.parent, releases.root / "again")


def no_metadata(releases):
    (releases.mimic / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()


def two_splits(releases):
    path = releases.mimic / "mimic-cxr-2.0.0-split.csv.gz"
    shutil.copy(path, releases.root / "mimic-cxr-2.1.0-split.csv.gz")


def torn_table(releases):
    path = releases.mimic / "mimic-cxr-2.0.0-chexpert.csv.gz"
    path.write_bytes(path.read_bytes()[:-9])


def header_alone(releases):
    releases.edit("chexpert", lambda text: text.partition("\n")[0] + "\n")


def no_column(releases):
    releases.edit("metadata", lambda text: text.replace("ViewPosition", "View"))


def short_line(releases):
    releases.edit("split", lambda text: text + "a,b\n")


def odd_part(releases):
    releases.edit("split", lambda text: text.replace("validate", "valid"))


def odd_number(releases):
    releases.edit("metadata", lambda text: text.replace("10000002", "1e7", 1))


def odd_height(releases):
    releases.edit("metadata", lambda text: text.replace(",PA,80,80", ",PA,,80", 1))


def odd_name(releases):
    releases.edit("metadata", lambda text: text.replace(dicom("wide"), "../wide"))


def film_twice(releases):
    releases.edit("metadata", lambda text: text + text.splitlines()[1] + "\n")


def half_the_lists(releases):
    (releases.silver / "splits" / "valid.csv").unlink()


def lists_that_share_a_film(releases):
    with open(releases.silver / "splits" / "valid.csv", "a") as file:
        file.write(f"9,1,2,{dicom('square')},files/x.dcm,PA\n")


def no_list_to_avoid(releases):
    (releases.silver / "splits" / "images_to_avoid.csv").unlink()


def no_ms_cxr(releases):
    shutil.rmtree(releases.root / "ms-cxr")


def other_films(releases):
    releases.edit("metadata", lambda text: text.replace("-", "_"))


def no_films(releases):
    shutil.rmtree(releases.mimic / "files")


def no_box(releases):
    for graph in releases.graphs.values():
        graph["objects"] = []
    releases.write_graphs()


def no_text(releases):
    releases.graphs = dict.fromkeys(releases.graphs, 0)
    releases.write_graphs()


@pytest.mark.parametrize(
    "change, words",
    [
        (no_folder, "raw: no such folder"),
        (no_graphs, "no Chest ImaGenome (scene_graph.zip or a folder scene_graph)"),
        (empty_graphs, "scene_graph: no scene graph; *_SceneGraph.json are"),
        (torn_archive, "scene_graph.zip: no sound archive"),
        (graph_twice, "SceneGraph.json are there; keep one"),
        (two_releases, "silver_dataset/scene_graph.zip are there; keep one"),
        (no_metadata, "no mimic-cxr-2.*-metadata.csv.gz there, nor in 5 levels"),
        (two_splits, "mimic-cxr-2.0.0-split.csv.gz are there; keep one"),
        (torn_table, "chexpert.csv.gz: damaged or not text"),
        (header_alone, "chexpert.csv.gz: has a header and no row"),
        (no_column, "metadata.csv.gz, line 1: no column ViewPosition; the header"),
        (short_line, "split.csv.gz, line 18: 2 cells; 4 are allowed"),
        (odd_part, "split.csv.gz, line 4: split 'valid'; train, validate, test are"),
        (odd_number, "metadata.csv.gz, line 4: 'subject_id' is '1e7'"),
        (odd_height, "metadata.csv.gz, line 2: 'Rows' is ''; a whole number"),
        (odd_name, "metadata.csv.gz, line 3: dicom_id '../wide'"),
        (film_twice, "is there twice; once is allowed"),
        (half_the_lists, "valid.csv is missing, but other lists"),
        (lists_that_share_a_film, "is also in train.csv"),
        (no_list_to_avoid, "no images_to_avoid.csv, whose films are left out"),
        (no_ms_cxr, "build the config that ends in _with_ms_cxr"),
        (other_films, "none of its 17 films can be used"),
        (no_films, "none of its 6 films is there, such as"),
        (no_box, "none of its 17 films can be used"),
        (no_text, "9 films cannot be used (9 graph)"),
    ],
)
def test_bad_input_is_one_line_and_code_2(releases, tmp_path, capsys, change, words):
    change(releases)
    data = tmp_path / "data"
    code, said = releases.run(capsys, data)
    assert code == 2 and words in said.splitlines()[-1], said
    assert not list(data.rglob("dataset_info.json"))


def test_the_folder_is_needed(tmp_path, capsys):
    argv = ["chest_imagenome", f"--data_dir={tmp_path}", "--workers=0"]
    assert command.main(argv) == 2
    assert "Chest ImaGenome and MIMIC-CXR-JPG with --manual_dir" in (
        capsys.readouterr().err
    )
    assert command.main(["chest_imagenome/65px", f"--data_dir={tmp_path}"]) == 2
    assert "allowed: 256px, 224px, 512px" in capsys.readouterr().err


def test_gold_tables_with_quotes_and_commas_are_read(releases):
    gold = releases.silver.parent / "gold_dataset"
    out = io.StringIO()
    writer = csv.writer(out)
    rows = [["image_id", "bbox"], [f"{dicom('square')}.dcm", "[1, 2]"]]
    writer.writerows(rows)
    (gold / "gold_bbox_coordinate_annotations_1000images.csv").write_text(
        out.getvalue()
    )
    found = read_release(str(releases.root), without=builder.VARIANTS[""])
    assert found.gold == 2 and found.refused[dicom("square")].code == "gold"
