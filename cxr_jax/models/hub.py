"""Public weights by name: where they lie, what they hash to, and their passport.

The file is fetched once into the user's cache and checked at every use; a path to a file
that was fetched elsewhere does the same without a network.
"""

import dataclasses
import hashlib
import logging
import pathlib

import pooch
import requests

from cxr_jax import labels
from cxr_jax.errors import CheckpointError
from cxr_jax.models.layouts import LAYOUTS, XRV18, XRV_ALL, xrv_classes
from cxr_jax.models.passport import Passport

_XRV = "https://github.com/mlmed/torchxrayvision/releases/download/v1/"
_XRV_FILE = "{}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/densenet/"
_KERAS_NEW = "https://storage.googleapis.com/keras-applications/"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One public file of weights.

    Attributes:
        url: where it lies.
        layout: a key of ``layouts.LAYOUTS``.
        architecture: such as ``densenet121``.
        licence: SPDX name that its publisher states.
        checksum: ``sha256:`` and the digest or its first digits, ``md5:`` and the
            digest, as the publisher makes it known; "" where he does not.
        classes: of its head; () for the 1,000 of ImageNet.
        head: whether it has one.
    """

    url: str
    layout: str
    architecture: str
    licence: str
    checksum: str = ""
    classes: tuple[str, ...] = ()
    head: bool = True

    def passport(self, name: str, sha256: str) -> Passport:
        """The passport of the file under its name in ``HUB``."""
        layout = LAYOUTS[self.layout]
        outputs = "sigmoid" if self.classes else "softmax"
        return Passport(
            architecture=self.architecture,
            source=f"{name} ({self.url})",
            licence=self.licence,
            mean=layout.mean,
            std=layout.std,
            channels=len(layout.mean),
            size=224,
            classes=self.classes,
            outputs=outputs if self.head else "none",
            sha256=sha256,
            notes=layout.notes,
        )


def _xrv(name: str, known: str, checksum: str = "") -> Entry:
    """TorchXRayVision: 18 outputs, of which those it was not trained on have no name."""
    classes = xrv_classes(XRV18 if known == "all" else known.split("|"))
    url = _XRV + _XRV_FILE.format(name)
    licence = "Apache-2.0"
    return Entry(url, "torchxrayvision", "densenet121", licence, checksum, classes)


_CHEXPERT = (
    "Atelectasis|Consolidation|Pneumothorax|Edema|Effusion|Pneumonia|Cardiomegaly"
    "|Lung Lesion|Fracture|Lung Opacity|Enlarged Cardiomediastinum"
)
_NIH = "|".join(labels.NIH14)
HUB = {
    **{
        f"torchvision/{name}": Entry(
            f"https://download.pytorch.org/models/{name}-{digits}.pth",
            "torchvision",
            name,
            "BSD-3-Clause",
            f"sha256:{digits}",
        )
        for name, digits in (
            ("densenet121", "a639ec97"),
            ("densenet169", "b2777c0a"),
            ("densenet201", "c1103571"),
            ("densenet161", "8d451a50"),
        )
    },
    **{
        f"timm/{name}.tv_in1k": Entry(
            f"https://huggingface.co/timm/{name}.tv_in1k/resolve/main/model.safetensors",
            "timm",
            name,
            "Apache-2.0",
            checksum,
        )
        for name, checksum in (
            (
                "densenet121",
                "sha256:c894c6d9caa317a8ca1942986dee7a16a86c77734a4d691d2abe05389cfef358",
            ),
            ("densenet169", ""),
            ("densenet201", ""),
            ("densenet161", ""),
        )
    },
    **{
        f"keras/{name}": Entry(
            f"{_KERAS}{name}_weights_tf_dim_ordering_tf_kernels.h5",
            "keras",
            name,
            "BSD-3-Clause",
            f"md5:{digits}",
        )
        for name, digits in (
            ("densenet121", "9d60b8095a5708f2dcce2bca79d332c7"),
            ("densenet169", "d699b8f76981ab1b30698df4c175e90b"),
            ("densenet201", "1ceb130c1ea1b78c3bf6114dbdfd8807"),
        )
    },
    "keras/densenet121-notop": Entry(
        f"{_KERAS}densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "keras",
        "densenet121",
        "BSD-3-Clause",
        "md5:30ee3e1110167f948a6b9946edeeb738",
        head=False,
    ),
    **{
        f"keras/efficientnet_{size}-notop": Entry(
            f"{_KERAS_NEW}efficientnet{size}_notop.h5",
            "keras-efficientnet",
            f"efficientnet_{size}",
            "Apache-2.0",  # of the repository of its authors, which Keras converted
            f"md5:{digits}",
            head=False,
        )
        for size, digits in (
            ("b0", "50bc09e76180e00e4465e1a485ddc09d"),
            ("b1", "74c4e6b3e1f6a1eea24c589628592432"),
            ("b2", "111f8e2ac8aa800a7a99e3239f7bfb39"),
            ("b3", "af6d107764bb5b1abb91932881670226"),
        )
    },
    "torchxrayvision/densenet121-res224-all": _xrv(
        "nih-pc-chex-mimic_ch-google-openi-kaggle",
        "all",
        f"sha256:{XRV_ALL}",
    ),
    "torchxrayvision/densenet121-res224-nih": _xrv("nih", _NIH),
    "torchxrayvision/densenet121-res224-pc": _xrv("pc", f"{_NIH}|Fracture"),
    "torchxrayvision/densenet121-res224-chex": _xrv("chex", _CHEXPERT),
    "torchxrayvision/densenet121-res224-rsna": _xrv("kaggle", "Pneumonia|Lung Opacity"),
    "torchxrayvision/densenet121-res224-mimic_nb": _xrv("mimic_nb", _CHEXPERT),
    "torchxrayvision/densenet121-res224-mimic_ch": _xrv("mimic_ch", _CHEXPERT),
}


def fetch(name: str, *, cache: str | pathlib.Path | None = None) -> pathlib.Path:
    """The file of a name in ``HUB``, from the cache or from its publisher.

    Args:
        name: such as ``timm/densenet121.tv_in1k``.
        cache: folder of fetched files; the system's cache of the user by default.

    Raises:
        CheckpointError: no such name, no network, or bytes with another digest.
    """
    if name not in HUB:
        raise CheckpointError(
            f"pretrained.from={name!r}: no such file, and no such name; the names are"
            f" {', '.join(sorted(HUB))}"
        )
    entry = HUB[name]
    folder = pathlib.Path(cache or pooch.os_cache("cxr_jax"))
    file = name.replace("/", "-") + "-" + entry.url.rpartition("/")[2]
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        path = pooch.retrieve(entry.url, known_hash=None, fname=file, path=folder)
    except (OSError, ValueError, requests.exceptions.RequestException) as error:
        raise CheckpointError(
            f"{name}: could not be fetched from {entry.url}"
            f" ({type(error).__name__}): fetch it where there is a network and give its"
            " path as pretrained.from"
        ) from error
    return _verified(pathlib.Path(path), name, entry.checksum)


def _verified(path: pathlib.Path, name: str, checksum: str) -> pathlib.Path:
    kind, _, digits = checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest() if kind else ""
    if not found.startswith(digits):
        path.unlink()  # it would be refused for ever
        raise CheckpointError(
            f"{name}: the file that arrived has {kind} {found}, its publisher says"
            f" {digits}: it was thrown away; fetch it again"
        )
    return path
