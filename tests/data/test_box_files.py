"""Files of boxes: what is written is read, and what is wrong is named by its line."""

import numpy as np
import pytest

from cxr_jax.data import box_files
from cxr_jax.errors import DataError
from cxr_jax.types import Boxes

CLASSES = ("Mass", "Pleural_Thickening")
IDS = ("a.png", "b.png", "c.png")


def made():
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.random((2, 3, 2, 2)), axis=0)
    return Boxes(
        xyxy=np.concatenate([low, high], axis=-1).astype(np.float32),
        label=np.tile([0, 1], (3, 1)),
        mask=np.array([[True, True], [False, False], [False, True]]),
        score=rng.random((3, 2)).astype(np.float32),
    )


def test_what_is_written_is_read_to_the_bit(tmp_path):
    boxes, path = made(), tmp_path / "boxes.csv"
    path.write_text(box_files.format_boxes(IDS, CLASSES, boxes))
    assert path.read_text().splitlines()[0] == "id,class,score,x1,y1,x2,y2"
    table = box_files.read_boxes(path, classes=CLASSES)
    assert table.id.tolist() == ["a.png", "a.png", "c.png"]
    assert table.name.tolist() == ["Mass", "Pleural_Thickening", "Pleural_Thickening"]
    np.testing.assert_array_equal(table.xyxy.astype(np.float32), boxes.xyxy[boxes.mask])
    again = box_files.padded(table, ids=IDS, classes=CLASSES)
    assert again.xyxy.dtype == np.float32
    np.testing.assert_array_equal(again.xyxy[again.mask], boxes.xyxy[boxes.mask])
    np.testing.assert_array_equal(
        table.score.astype(np.float32), boxes.score[boxes.mask]
    )
    assert table.line.tolist() == [2, 3, 4]


def test_boxes_go_to_their_films_in_any_order(tmp_path):
    path = tmp_path / "b.csv"
    path.write_text(
        "Class,x1,y1,x2,y2,score,note,id\n"
        "pleural thickening,0.1,0.2,0.3,0.4,0.9,hm,films/c.png\n"
        "MASS,0,0,1,1,0.5,,a.png\n"
        "Mass,0,0,0.5,1,0.25,,c.png\n"
        "Mass,0,0,0.5,1,0.25,,elsewhere.png\n"
    )
    table = box_files.read_boxes(path, classes=CLASSES)
    found = box_files.padded(table, ids=IDS, classes=CLASSES)
    np.testing.assert_array_equal(found.mask, [[1, 0], [0, 0], [1, 1]])
    assert found.label[2].tolist() == [1, 0]
    assert found.score[2].tolist() == [0.9, 0.25]
    np.testing.assert_array_equal(found.xyxy[0, 0], [0, 0, 1, 1])
    one = box_files.padded(table, ids=IDS, classes=("Mass",))
    assert one.mask.sum(axis=1).tolist() == [1, 0, 1] and not one.label.any()


def test_references_need_no_score(tmp_path):
    path = tmp_path / "b.csv"
    path.write_text("id,class,x1,y1,x2,y2\na.png,Mass,0,0,1,1\n")
    table = box_files.read_boxes(path, classes=CLASSES, scored=False)
    assert table.score is None
    assert box_files.padded(table, ids=IDS, classes=CLASSES).score is None
    with pytest.raises(DataError, match="line 1: score is no column"):
        box_files.read_boxes(path, classes=CLASSES)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.png,Hernia,0.5,0,0,1,1", "line 2: class is 'Hernia'; allowed: Mass"),
        (",Mass,0.5,0,0,1,1", "line 2: id is empty"),
        ("a.png,Mass,1.5,0,0,1,1", "line 2: score is '1.5'"),
        ("a.png,Mass,nan,0,0,1,1", "line 2: score is 'nan'"),
        ("a.png,Mass,0.5,0,0,512,1", "line 2: x2 is '512'; a .*pixels over"),
        ("a.png,Mass,0.5,0,0,1", "line 2: 6 cells, but the header has 7"),
        ("a.png,Mass,0.5,0,0,1,", "line 2: y2 is ''"),
        ("a.png,Mass,0,5,0,0,1,1", "line 2: 8 cells"),
        ("\n\na.png,Mass,2,0,0,1,1", "line 4: score is '2'"),
        ("a.png,Mass,0.5,0.4,0,0.4,1", "line 2: the box .* has no inside"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path, line, said):
    path = tmp_path / "b.csv"
    path.write_text(f"id,class,score,x1,y1,x2,y2\n{line}\n")
    with pytest.raises(DataError, match=said):
        box_files.read_boxes(path, classes=CLASSES)


def test_an_empty_file_is_called_so(tmp_path):
    (tmp_path / "b.csv").write_text("")
    with pytest.raises(DataError, match="is empty; a file of boxes has the header id,"):
        box_files.read_boxes(tmp_path / "b.csv", classes=CLASSES)
