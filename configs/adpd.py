"""ADPD: boxes of findings from anatomical regions; Loc-ADPD and MIL-ADPD.

Paper:     Müller, Meissen, Brandt, Kaissis, Rueckert, "Anatomy-Driven Pathology Detection
           on Chest X-rays", MICCAI 2023 (arXiv:2309.02578); the released code
           philip-mueller/adpd fills what it leaves out.
Number:    Loc-ADPD mAP 10.89, MIL-ADPD 7.84 (×100, IoU 0.1 to 0.7, Table 1), on a test
           half of 882 boxed films of ChestX-ray8 that cannot be drawn again.
Command:   python -m cxr_jax.main --config=configs/adpd.py[:VARIANT,…] --workdir=RUN
Hardware:  the paper took about 7 hours on one RTX A6000; not yet timed here. The variant
           `phantom` takes minutes on two CPU cores.

The default is Loc-ADPD: DenseNet-121, its map projected to 512 features, one decoder layer
with 29 learned tokens; 5 · L1 + 2 · GIoU + presence, and 0.01 · asymmetric loss over the
findings of the regions that are there; AdamW, 3,000 steps of warm-up, a cosine.

Variants:
  loc      the default, by its name
  mil      findings learnt from labels of whole films, pooled over regions; 256 features
  loc_mil  both losses of findings
  no_wbf   boxes of a class are not fused: the region that says it loudest
  as_released  no class Pneumothorax, as in the released table of classes
  redrawn  starts as the released code does: ImageNet's statistics under random kernels
  regions  judged by regions and findings of Chest ImaGenome itself
  phantom  computed films, a narrow network; minutes on two CPU cores

Read elsewhere (Table 1, mAP): without fusion 8.88 (Loc) and 5.42 (MIL); Loc with MIL 10.29.

Paper and code differ, or leave open; each is a field:
  task.findings        the paper has 55, the released list 53: 53.
  task.terms.*.reduce  the paper averages the asymmetric loss over regions and findings,
                       the code adds it up; 0.01 only makes sense with the sum.
  task.present_above   not in the paper; the code compares the logit with 0.5.
  task.mapping         Pneumothorax is spelled otherwise in the code's table, so that
                       nothing maps to it; see `as_released`.
  pretrained           not in the paper; the code loads ImageNet weights and then draws
                       all kernels and scales anew, which leaves the statistics: from
                       ImageNet here; see `redrawn`. Without a network, or to start at
                       random, --config.pretrained.from="".
  pretrained.stem      as the code, the stem is given films scaled otherwise than on
                       ImageNet, (x - 0.505) / 0.248.
Deviations:
  augmentation   one matrix, one resampling: where the code turns and shifts what is left
                 of a film after the crop, on black, here more of the film comes in; blur
                 comes before brightness and contrast, and pixels are clipped once.
  validation     after every epoch; the code also every 500 steps.
  arithmetic     float32; the code trains in half precision. Seed 0 instead of 42. The
                 logarithm of the asymmetric loss is exact; the code clamps it at 1e-8.
  films          stored as 8 bits, cut to a square before they are reduced.
  halves         patients in the order of a digest of seed and id; the code's order
                 depends on Python's hash seed and cannot be drawn again.
  precision      boxes of equal score count together; the code takes them one by one.
  no_wbf, as_released  train again with the same seed: the same steps, but each keeps the
                 epoch with its own best mAP. The paper does not say.
"""

from typing import Any

from ml_collections import config_dict

from configs import common
from cxr_jax.labels import CXR8, IMAGENOME_FINDINGS, REGIONS29

# The released table of classes, Pneumothorax spelled as the findings are.
MAPPING = {
    "Atelectasis": ("atelectasis",),
    "Cardiomegaly": ("enlarged cardiac silhouette",),
    "Effusion": ("pleural effusion",),
    "Infiltration": ("infiltration", "lung opacity"),
    "Mass": ("mass/nodule (not otherwise specified)", "multiple masses/nodules"),
    "Nodule": ("mass/nodule (not otherwise specified)",),
    "Pneumonia": ("pneumonia",),
    "Pneumothorax": ("pneumothorax",),
}
# Table 1: mAP, then AP and localisation accuracy at IoU 0.1, 0.3 and 0.5; AP ×100.
TABLE_1 = {
    "Loc-ADPD": (10.89, 19.99, 0.85, 12.43, 0.84, 8.72, 0.83),
    "Loc-ADPD, without box fusion": (8.88, 17.02, 0.84, 9.65, 0.83, 7.36, 0.83),
    "Loc-ADPD with MIL": (10.29, 19.16, 0.84, 10.95, 0.83, 8.00, 0.82),
    "MIL-ADPD": (7.84, 14.01, 0.68, 8.85, 0.65, 7.03, 0.65),
    "MIL-ADPD, without box fusion": (5.42, 11.05, 0.67, 7.97, 0.65, 3.44, 0.64),
    "CheXNet": (5.80, 12.87, 0.58, 8.23, 0.55, 3.12, 0.52),
    "STL": (5.61, 12.76, 0.57, 7.94, 0.54, 2.45, 0.50),
    "GradCAM": (4.43, 12.53, 0.58, 6.67, 0.54, 0.13, 0.51),
    "CXR": (5.61, 13.91, 0.59, 8.01, 0.55, 1.24, 0.51),
    "WELDON": (4.76, 14.57, 0.61, 6.18, 0.56, 0.34, 0.51),
    "MultiMap": (4.91, 12.36, 0.61, 7.13, 0.57, 1.35, 0.53),
    "LSE Model": (3.77, 14.49, 0.61, 2.62, 0.56, 0.42, 0.54),
    "AGXNet": (5.30, 11.39, 0.59, 6.58, 0.56, 4.14, 0.54),
    "Faster R-CNN": (7.36, 9.11, 0.79, 7.62, 0.79, 7.26, 0.78),
}
PRINTED = ("map", "ap@0.1", "loc_acc@0.1", "ap@0.3", "loc_acc@0.3", "ap@0.5")
PRINTED += ("loc_acc@0.5",)
PAPER_BATCH = 128
ASYMMETRIC = {
    "name": "cxr_jax.losses.asymmetric",
    "gamma_pos": 1.0,
    "gamma_neg": 4.0,
    "clip": 0.05,
}


def _term(name: str, weight: float, fn: Any, **reduce: str) -> dict[str, Any]:
    return {
        "name": name,
        "quantity": name,
        "fn": fn if isinstance(fn, dict) else {"name": f"cxr_jax.losses.{fn}"},
        "axes": tuple(reduce),
        "reduce": reduce,
        "weight": weight,
    }


REGIONS = (
    _term("coordinates", 5.0, "absolute", regions="mean", coordinates="sum"),
    _term("giou", 2.0, "absolute", regions="mean"),
    _term("presence", 1.0, "bce", regions="mean"),
)
FINDINGS = _term("findings", 0.01, ASYMMETRIC, regions="sum", findings="sum")
FILM = _term("film", 0.01, ASYMMETRIC, batch="sum", findings="sum")


def get_config() -> config_dict.ConfigDict:
    """Loc-ADPD."""
    c = common.base()
    c.name = "adpd"
    c.data.dataset = "chest_imagenome/256px"
    c.data.scheme = "released"
    c.data.evaluation.dataset = "chestxray14/224px"
    c.data.evaluation.scheme = "cxr8_halves"

    c.pretrained["from"] = "timm/densenet121.tv_in1k"
    c.pretrained.stem = "keep"

    c.task.name = "cxr_jax.tasks.anatomy.Anatomy"
    c.task.classes = CXR8
    c.task.findings = IMAGENOME_FINDINGS
    c.task.regions = REGIONS29
    c.task.mapping = MAPPING
    c.task.model = common.network("densenet.densenet121")
    c.task.head = {
        "name": "cxr_jax.models.decoder.RegionDecoder",
        "width": 512,
        "layers": 1,
        "heads": 8,
        "dropout": 0.3,
        "drop_path": 0.2,
        "finding_head": "linear",  # or mlp, transformer
        "region_features": "token",  # or roi
    }
    c.task.terms = (*REGIONS, FINDINGS)
    c.task.film_labels = "labels"
    c.task.sharpness = 5.0
    c.task.present_above = 0.5
    c.task.found_above = 0.5
    c.task.fuse_above = 0.03
    c.task.size = 224
    c.task.channels = 3
    c.task.mean, c.task.std = (0.505,) * 3, (0.248,) * 3

    c.augment.safe_crop = 0.2
    c.augment.size = 224
    c.augment.rotation = 2.0
    c.augment.translate = 0.02
    c.augment.stretch = (0.95, 1.0)
    c.augment.gain = (0.8, 1.2)
    c.augment.contrast = (0.8, 1.2)
    c.augment.blur, c.augment.blur_from = 1.0, 0.1
    c.augment.blur_share, c.augment.blur_radius = 0.5, 1

    c.train.batch_size = PAPER_BATCH
    c.phases = (_phase(learning_rate=3e-5, weight_decay=1e-5),)
    c.plateau.patience = 0
    c.checkpoint.metric, c.checkpoint.mode = "map", "max"
    c.eval.evaluators = (
        {"name": "cxr_jax.evaluators.classification.Classification"},
        {
            "name": "cxr_jax.evaluators.detection.Detection",
            "keep_above": 0.7,  # of localisation accuracy; AP looks at all boxes
        },
    )
    c.report.limits = (
        f"{c.report.limits} A box is that of an anatomical region, not the outline of a"
        " finding."
    )
    c.report.title = c.report.model = "Loc-ADPD"
    c.report.published_boxes = published()
    return c


def published() -> tuple[dict[str, object], ...]:
    """Rows of Table 1."""
    return tuple(
        {
            "name": name,
            "source": "Müller et al., MICCAI 2023, Table 1",
            "split": "a test half of 882 films of ChestX-ray8, which was not published",
            "values": dict(zip(PRINTED, values, strict=True)),
        }
        for name, values in TABLE_1.items()
    )


def _phase(*, learning_rate: float, weight_decay: float) -> dict[str, object]:
    return common.phase(
        epochs=25.0,
        learning_rate=learning_rate,
        optimizer={"name": "cxr_jax.optim.adamw", "weight_decay": weight_decay},
        schedule={"name": "cxr_jax.optim.cosine_under_warmup", "warmup_steps": 3_000},
        clip_norm=5.0,
        stop_after=11,  # validations: of an epoch each, 20,000 steps
    )


def loc(c: config_dict.ConfigDict) -> None:
    """Findings of regions are learnt from labels of regions: the default."""
    c.task.terms = (*REGIONS, FINDINGS)


def mil(c: config_dict.ConfigDict) -> None:
    """Findings of regions are learnt from labels of whole films."""
    c.task.terms = (*REGIONS, FILM)
    c.task.head["width"] = 256
    c.phases = (_phase(learning_rate=1e-4, weight_decay=1e-4),)
    c.report.title = c.report.model = "MIL-ADPD"


def loc_mil(c: config_dict.ConfigDict) -> None:
    """Both: "w/ MIL" of Table 1, whose other settings are not stated."""
    c.task.terms = (*REGIONS, FINDINGS, FILM)
    c.report.title = c.report.model = "Loc-ADPD with MIL"


def no_wbf(c: config_dict.ConfigDict) -> None:
    """The box of the region that says a class loudest, unfused."""
    c.task.fuse_above = 1.0
    c.report.title += ", without box fusion"
    c.report.model = c.report.title


def as_released(c: config_dict.ConfigDict) -> None:
    """The released table spells Pneumothorax otherwise: it is never found."""
    c.task.mapping = {k: v for k, v in MAPPING.items() if k != "Pneumothorax"}
    c.report.title += ", classes as released"
    c.report.model = c.report.title


def redrawn(c: config_dict.ConfigDict) -> None:
    """Kernels and scales of the encoder are drawn anew over those that were loaded."""
    # All layers of its image encoder, of which the projection is the last.
    c.pretrained.redraw = ("backbone/*", "head/project/*")
    c.report.title += ", backbone redrawn"
    c.report.model = c.report.title


def regions(c: config_dict.ConfigDict) -> None:
    """Judged by the regions of Chest ImaGenome's own parts, and their 53 findings.

    The best epoch is that of the lowest validation loss: no box of a finding is looked at.
    """
    c.data.evaluation.dataset = c.data.evaluation.scheme = ""
    c.task.classes = IMAGENOME_FINDINGS
    c.task.mapping = {name: (name,) for name in IMAGENOME_FINDINGS}
    c.checkpoint.metric, c.checkpoint.mode = "loss", "min"
    c.eval.evaluators = (
        {"name": "cxr_jax.evaluators.classification.Classification"},
        {"name": "cxr_jax.evaluators.regions.RegionQuality"},
    )
    c.eval.reference = (
        "Reference: Chest ImaGenome's regions and findings, drawn by rules."
    )
    c.report.published_boxes = ()
    c.report.title += ", regions"


def phantom(c: config_dict.ConfigDict) -> None:
    """Built-in phantom films of 128 px; minutes on two CPU cores.

    Narrowed as `narrow` says; 64 features in the decoder, with 4 heads, dropout 0.1, no
    branch left out. Labels of whole films are those of any of their regions. Scores of so
    short a training stay below 0.7: all boxes count for localisation accuracy. A loss that
    adds up a batch adds up a quarter of the paper's. MIL's, of films, has four times the
    weight 0.01, so that it has the paper's share in the whole: with less it learns no
    findings in so few steps. Loc's, of regions, keeps 0.01: with more it learns findings
    before it knows where the regions are.
    """
    narrow(c)
    c.task.terms = tuple(_for_batch(term, c.train.batch_size) for term in c.task.terms)
    c.data.evaluation.dataset = c.data.evaluation.scheme = ""
    c.task.film_labels = "regions"
    c.eval.evaluators = (
        *(
            {**e, "keep_above": 0.0} if "keep_above" in e else e
            for e in c.eval.evaluators
        ),
        {"name": "cxr_jax.evaluators.regions.RegionQuality"},
    )
    c.task.head.update({"width": 64, "heads": 4, "dropout": 0.1, "drop_path": 0.0})
    c.task.size = c.augment.size = 0


def _for_batch(term: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """The loss of films as it weighs in a batch of the paper."""
    if term["quantity"] != "film":
        return term
    return {**term, "weight": term["weight"] * PAPER_BATCH / batch_size}


def narrow(c: config_dict.ConfigDict) -> None:
    """What all detectors have in common on the phantom: films, backbone, training.

    Two dense blocks of 6 and 8 layers with growth 16 instead of DenseNet-121, on one
    channel of 128 px; the stem is 7×7 (stride 4, then the max-pool), so that maps have 8×8
    cells. Random start, batch 32, 6 epochs of AdamW at 1e-3 with a tenth of warm-up.
    """
    c.data.dataset = "phantom_chest/small"
    c.data.scheme = "patient_disjoint"
    c.pretrained["from"] = ""
    c.task.model = common.network(
        "densenet.DenseNet", blocks=(6, 8), growth=16, stem_width=32, stem_stride=4
    )
    c.task.channels = 1
    c.task.mean, c.task.std = (0.5,), (0.25,)
    c.train.batch_size = 32
    c.train.log_every = 50
    c.checkpoint.every_steps = 200
    c.eval.batch_size = 64
    c.phases = (
        common.phase(
            epochs=6.0,
            learning_rate=1e-3,
            optimizer={"name": "cxr_jax.optim.adamw", "weight_decay": 1e-5},
            schedule={"name": "cxr_jax.optim.warmup_cosine", "warmup": 0.1},
            clip_norm=5.0,
        ),
    )


# Words that mean one thing each: which findings are learnt from which labels.
ONE_OF = (("loc", "mil", "loc_mil"),)
VARIANTS = {
    "loc": loc,
    "mil": mil,
    "loc_mil": loc_mil,
    "no_wbf": no_wbf,
    "as_released": as_released,
    "redrawn": redrawn,
    "regions": regions,
    "phantom": phantom,
}
