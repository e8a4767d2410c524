"""A fabricated ChestX-ray14 release, small enough to build in a moment."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cxr_jax.data import manifest as manifests
from cxr_jax.labels import NIH14
from data_builders import build

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


class Release:
    """Twenty gray films of ten patients in ``images``, with table, boxes and lists.

    Film k has finding k mod 14 and Edema, or none where finding k is Edema.
    """

    names = tuple(f"{1 + k // 2:08d}_{k % 2:03d}.png" for k in range(20))

    def __init__(self, root: pathlib.Path):
        self.root = root
        parts = ["train"] * 12 + ["val"] * 2 + ["test"] * 6
        self.parts = dict(zip(self.names, parts, strict=True))
        for name in self.names:
            self.put(f"images/{name}", self.pixels(name))
        self.write_table()
        (root / "BBox_List_2017.csv").write_text(
            "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
            f"{self.names[3]},Infiltrate,256,512,128,64\n"
            f"{self.names[3]},Mass,0,0,1024,1024\n"
            f"{self.names[9]},Nodule,1,2,3,4\n"
        )
        for part in ("train", "val", "test"):
            listed = [name for name in self.names if self.parts[name] == part]
            lines = [" ".join([name] + ["0"] * 14) for name in listed]
            (root / f"patient_disjoint_{part}.txt").write_text("\n".join(lines))
        test = [name for name in self.names if self.parts[name] == "test"]
        (root / "test_list.txt").write_text("\n".join(test) + "\n")
        rest = [name for name in self.names if self.parts[name] != "test"]
        (root / "train_val_list.txt").write_text("\n".join(rest) + "\n")

    def write_table(self, ages=None) -> None:
        rows = [HEADER]
        for k, name in enumerate(self.names):
            finding = NIH14[k % 14]
            words = "No Finding" if finding == "Edema" else f"{finding}|Edema"
            age = (ages or {}).get(name, 40 + k)
            view = "PA" if k % 3 else "AP"
            rows.append(
                f"{name},{words},{name[9:12]},{int(name[:8])},{age},{'MF'[k % 2]},"
                f"{view},2500,2048,0.168,0.168"
            )
        table = self.root / "Data_Entry_2017_v2020.csv"
        table.write_text("\n".join(rows) + "\n")

    @staticmethod
    def pixels(name: str, side: int = 64) -> np.ndarray:
        rng = np.random.default_rng(int(name[:8]) * 10 + int(name[9:12]))
        return rng.integers(0, 256, (side, side), dtype=np.uint8)

    def put(self, path: str, image: np.ndarray, **how) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target, **how)

    def make(self, data_dir, **options) -> pathlib.Path:
        options = {"num_shards": 2, "manual_dir": str(self.root), **options}
        return build("chestxray14/64px", data_dir=data_dir, **options)

    def argv(self, data_dir, *more) -> list[str]:
        where = f"--manual_dir={self.root}", f"--data_dir={data_dir}"
        return ["chestxray14/64px", *where, "--num_shards=2", *more]

    def start(self, data_dir, *more, **how) -> subprocess.Popen:
        """The same as a process of its own."""
        command = [sys.executable, "-m", "data_builders"]
        return subprocess.Popen(
            [*command, *self.argv(data_dir, *more)],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **how,
        )

    @staticmethod
    def folder(data_dir) -> pathlib.Path:
        return pathlib.Path(data_dir) / "chestxray14" / "64px" / "1.0.0"

    @staticmethod
    def digests(folder) -> list[str]:
        return [shard.sha256 for shard in manifests.read_manifest(folder).shards]

    @staticmethod
    def records(folder) -> list[dict]:
        source = tfds.builder_from_directory(str(folder)).as_data_source("all")
        return [source[k] for k in range(len(source))]

    @staticmethod
    def images(folder) -> dict[str, np.ndarray]:
        rows = Release.records(folder)
        return {row["id"].decode(): row["image"][..., 0] for row in rows}


@pytest.fixture
def release(tmp_path) -> Release:
    (tmp_path / "raw").mkdir()
    return Release(tmp_path / "raw")


@pytest.fixture
def images_of():
    """Films of a dataset by name."""
    return Release.images
