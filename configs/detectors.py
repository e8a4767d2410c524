"""Detectors that learnt from labels of films alone; boxes are made of their maps.

Paper:     CheXNet as Müller, Meissen, Brandt, Kaissis, Rueckert, "Anatomy-Driven Pathology
           Detection on Chest X-rays", MICCAI 2023 (arXiv:2309.02578), compare with; its
           settings are those of the released code philip-mueller/wsrpn, which the paper
           does not print.
Number:    mAP 5.80 (×100, IoU 0.1 to 0.7, Table 1), on a test half of 882 boxed films of
           ChestX-ray8 that cannot be drawn again.
Command:   python -m cxr_jax.main --config=configs/detectors.py[:VARIANT,…] --workdir=RUN
Hardware:  not yet timed on the real films. The variant `phantom` takes minutes on two CPU
           cores.

Trains on the films of patients without boxes that have one of the eight findings that
carry boxes, or none at all; nine outputs, the ninth for films without findings. A class
that is found (above 0.5) has the box of the part of its map that looks least like a film
without findings.

Variants:
  chexnet  the default, by its name: DenseNet-121, average pooling, a linear layer
  phantom  computed films, a narrow network, as long as configs/adpd.py:phantom
  true_labels  with `phantom`: without the errors of its reports, as ADPD learns there

Paper and code differ, or leave open; each is a field:
  data.scheme     the paper keeps films with boxes out of training, the code of the others
                  all films of their patients: the latter here; cxr8_halves_image_level.
  task.box_score  of the code: how little a place looks like a film without findings,
                  not how much it looks like the class; "class" for that.
  task.dummy_box  of the code: a film where nothing is found has one box of a class at
                  random, which counts as false; no box here.
  pretrained.stem  as the code, the stem is given films scaled otherwise than on ImageNet.
Deviations: films are reduced by area at build time, where the code resizes bilinearly;
float32, where it trains in half precision; seed 0 instead of 1234; a validation after every
epoch instead of 500 steps. Brightness, contrast and blur as in configs/adpd.py, but brightness and
contrast of every film, not of half of them. Maps are of the features that the head
pools, after the last norm and its ReLU; the code takes those before it. A batch is 128 films instead of 64 in two views.
"""

from ml_collections import config_dict

from configs import adpd, common
from cxr_jax.labels import CXR8, NO_FINDING


def get_config() -> config_dict.ConfigDict:
    """CheXNet, with boxes."""
    c = common.base()
    c.name = "detectors"
    c.data.dataset = "chestxray14/224px"
    c.data.scheme = "cxr8_halves"
    c.pretrained["from"] = "timm/densenet121.tv_in1k"
    c.pretrained.stem = "keep"

    c.task.name = "cxr_jax.tasks.heatmaps.Heatmaps"
    c.task.classes = (*CXR8, NO_FINDING)
    c.task.model = common.network("densenet.densenet121")
    c.task.head = {"name": "cxr_jax.models.heads.PoolThenClassify"}
    c.task.terms = (
        {
            "name": "bce",
            "fn": {"name": "cxr_jax.losses.weighted_bce"},
            "balance": True,
            "reduce": {"classes": "mean", "batch": "mean"},
        },
    )
    c.task.thresholds = (60 / 255, 180 / 255)
    c.task.side = 224
    c.task.found_above = 0.5
    c.task.box_score = "abnormal"  # or class
    c.task.dummy_box = False
    c.task.channels = 3
    c.task.mean, c.task.std = (0.505,) * 3, (0.248,) * 3

    c.augment.gain = c.augment.contrast = (0.8, 1.2)
    c.augment.blur, c.augment.blur_from = 3.0, 0.1
    c.augment.blur_share, c.augment.blur_radius = 0.5, 1

    c.train.batch_size = 128
    c.phases = (
        common.phase(
            epochs=70.0,  # 50,000 steps
            learning_rate=3.6e-5,
            optimizer={"name": "cxr_jax.optim.adamw", "weight_decay": 1e-6},
            clip_norm=5.0,
            stop_after=14,  # validations: of an epoch each, 10,000 steps
        ),
    )
    c.plateau.patience = 0
    c.checkpoint.metric, c.checkpoint.mode = "map", "max"
    c.eval.evaluators = (
        {"name": "cxr_jax.evaluators.classification.Classification"},
        {"name": "cxr_jax.evaluators.localization.Localization"},
        {"name": "cxr_jax.evaluators.detection.Detection"},
    )
    c.report.limits = f"{c.report.limits} A map shows influence on a score, not the extent of a finding."
    c.report.title = "CheXNet, boxes of its maps"
    c.report.model = "CheXNet"
    c.report.published_boxes = adpd.published()
    return c


def chexnet(c: config_dict.ConfigDict) -> None:
    """DenseNet-121, average pooling and a linear layer: the default."""
    c.task.head = {"name": "cxr_jax.models.heads.PoolThenClassify"}


def phantom(c: config_dict.ConfigDict) -> None:
    """Built-in phantom films of 128 px; minutes on two CPU cores.

    The network, films, batch, epochs and rates of `configs/adpd.py:phantom`; labels are
    those that the phantom's reports give, errors and all.
    """
    adpd.narrow(c)
    c.task.side = 128


def true_labels(c: config_dict.ConfigDict) -> None:
    """With `phantom`: learns from true labels, as the regions of ADPD's phantom are true."""
    c.data.truth = True
    c.report.title += ", true labels"
    c.report.model += ", true labels"


VARIANTS = {"chexnet": chexnet, "phantom": phantom, "true_labels": true_labels}
