"""A version stands for its pixels: ceilings, figures and workdirs are kept under its name."""

import itertools

import numpy as np
import pytest

from data_builders.phantom_bone import phantom_bone_dataset_builder as bone
from data_builders.phantom_bone import radiograph as bones
from data_builders.phantom_chest import phantom_chest_dataset_builder as chest
from data_builders.phantom_chest import radiograph as chests

# Mean and standard deviation of the first films of `tiny`, written down when the version
# was made: not what is right, but what its name was given to.
LOOKS = {
    ("phantom_chest", "1.1.0"): (
        (129.460, 115.890, 92.660, 77.209, 112.442, 80.978),
        (71.465, 79.784, 68.545, 67.270, 79.064, 73.421),
    ),
    ("phantom_bone", "1.0.0"): (
        (57.176, 57.939, 105.317, 63.527, 72.485, 138.178),
        (52.447, 51.395, 82.504, 55.983, 61.871, 36.612),
    ),
}
CHANGED = (
    "pixels changed: raise VERSION, renew ceilings.json and the figures of RESULTS.md,"
    " then write the new films down here"
)


@pytest.mark.parametrize(
    ("builder", "radiographs"), [(chest, chests), (bone, bones)], ids=["chest", "bone"]
)
def test_other_pixels_are_another_version(builder, radiographs):
    name, version = builder.Builder.name, str(builder.Builder.VERSION)
    known = LOOKS.get((name, version))
    assert known, f"{name} {version}: {CHANGED}"
    films = itertools.islice(radiographs.generate(builder.TINY), len(known[0]))
    images = [film.image for film in films]
    found = [[f(image) for image in images] for f in (np.mean, np.std)]
    # 41 of 4,096 pixels by a level: other processors may round a few otherwise.
    np.testing.assert_allclose(found, known, atol=0.01, err_msg=CHANGED)
