"""MURA: DenseNet-169 on each view, the mean over the views of a study; seven body parts.

Paper:     Rajpurkar, Irvin et al., "MURA Dataset: Towards Radiologist-Level Abnormality
           Detection in Musculoskeletal Radiographs", arXiv:1712.06957, v1 (11 December
           2017).
Number:    F1 0.857 (0.804, 0.905) on 209 studies that are not public, six radiologists
           0.884 (0.853, 0.918) (Table 2). The later version (v4) gives AUROC 0.929 and
           Cohen's kappa on 207 studies, against the majority of three radiologists.
Command:   python -m data_builders mura/224px --manual_dir=RAW
           python -m cxr_jax.main --config=configs/mura.py[:VARIANT,…] --workdir=RUN
Hardware:  one GPU or TPU core with 16 GB; not yet timed on either. On CPU use the variant
           `phantom`, which takes minutes.

The default is the paper to the letter where the release allows it: ImageNet start, all
weights trained with Adam (0.9, 0.999) at 1e-4, batches of 8 films, a tenth of the rate
whenever the validation loss does not fall in an epoch, the epoch with the lowest
validation loss kept; films scaled to 224×224, ImageNet mean and standard deviation,
random left-right flips and rotations; per film a cross-entropy weighted by study type,
w_T,1 = |N_T| / (|A_T| + |N_T|) and w_T,0 = |A_T| / (|A_T| + |N_T|), counted on the
training films. A study's probability is the mean over its views; abnormal above 0.5.

Variants (nothing of them was measured here):
  released    the release's own two lists: its `valid` part chooses the epoch and is
              judged, which flatters; what other reproductions report
  padded      films keep their aspect ratio within a black square
  phantom     computed films, a narrow network; minutes on two CPU cores
They combine, as in `phantom,padded`.

What the paper leaves open, or its versions tell differently, is a field:
  augment.rotation   the range is not given: 30 degrees either way; a public reproduction
                     takes 10.
  data.scheme        the test studies are not public: the release's `valid` patients test,
                     a share of its `train` patients like the paper's validates.
  data.dataset       "scale the variable-sized images to 224×224": stretched; see `padded`.
  phases.0.epochs    not given: 20, cut short after 5 validations without improvement.
  plateau.rtol       what counts as a plateau: an improvement below 1e-4, relative.
  eval.evaluators    readers' votes (tie, least), the threshold and its side, the panel of
                     the later paper (gold), resamples, what they draw (unit).
The paper's significance: its text infers "no significant difference" from overlapping
intervals although its section 4.1 defines an interval of the difference; the latter is
what is reported. Its counts are of a release before v1.1 (40,895 films; v1.1 40,561).

Deviations: films are scaled before they are normalised, and once, when the dataset is
built, with an area filter. Intervals resample patients; the paper resampled studies (209
of 208 patients), which `unit` in `eval.evaluators` does.
"""

from ml_collections import config_dict

from configs import common
from cxr_jax.labels import BODY_PARTS, MURA
from cxr_jax.predictions import READ_LABELS

ALL = "All"
# Table 2 of v1: (value, low, high) of F1, in the order of BODY_PARTS and then in aggregate.
RADIOLOGISTS = (
    (0.858, 0.707, 0.959),
    (0.781, 0.638, 0.871),
    (0.899, 0.804, 0.960),
    (0.854, 0.676, 0.958),
    (0.895, 0.774, 0.976),
    (0.925, 0.811, 0.989),
    (0.958, 0.908, 0.988),
    (0.884, 0.853, 0.918),
)
MODEL = (
    (0.848, 0.691, 0.955),
    (0.792, 0.588, 0.933),
    (0.814, 0.633, 0.942),
    (0.858, 0.658, 0.978),
    (0.862, 0.709, 0.968),
    (0.857, 0.667, 0.974),
    (0.968, 0.889, 1.000),
    (0.857, 0.804, 0.905),
)

# Table 1 of v1: normal and abnormal studies, in the order of BODY_PARTS.
COUNTS = (
    (1_203, 768),
    (1_389, 753),
    (677, 380),
    (1_613, 602),
    (411, 367),
    (1_479, 1_594),
    (2_295, 1_451),
)
# Table 3 of v1, as printed; its text counts 40,895 films of MURA.
DATASETS = (
    ("MURA", "Musculoskeletal (upper extremity)", "Abnormality", 41_299),
    ("Pediatric Bone Age (AIMI)", "Musculoskeletal (hand)", "Bone age", 14_236),
    ("0.E.1 (OAI)", "Musculoskeletal (knee)", "K&L grade", 8_892),
    ("Digital Hand Atlas", "Musculoskeletal (left hand)", "Bone age", 1_390),
    ("ChestX-ray14", "Chest", "Multiple pathologies", 112_120),
    ("OpenI", "Chest", "Multiple pathologies", 7_470),
    ("MC", "Chest", "Abnormality", 138),
    ("Shenzhen", "Chest", "Tuberculosis", 662),
    ("JSRT", "Chest", "Pulmonary nodule", 247),
    ("DDSM", "Mammogram", "Breast cancer", 10_239),
)


def get_config() -> config_dict.ConfigDict:
    """The paper's recipe."""
    c = common.base()
    c.name = "mura"
    c.data.dataset = "mura/224px"
    c.data.scheme = "official"
    # Patients of the paper's training and validation parts.
    c.data.fractions = (11_255 / 12_043, 788 / 12_043, 0.0)
    c.data.group = "body_part"

    c.task.name = "cxr_jax.tasks.classify.Classify"
    c.task.classes = MURA
    c.task.model = common.network("densenet.densenet169")
    c.task.head = {"name": "cxr_jax.models.heads.PoolThenClassify"}
    c.task.channels = 3
    c.task.maps = "cam"
    c.task.size = 0
    c.task.mean = (0.485, 0.456, 0.406)
    c.task.std = (0.229, 0.224, 0.225)
    c.task.terms = (
        {
            "name": "bce",
            "fn": {
                "name": "cxr_jax.losses.weighted_bce",
                "w_pos": "negative_share",
                "w_neg": "positive_share",
            },
            "by_group": ("w_pos", "w_neg"),
            "weight": 1.0,
            "reduce": {"classes": "sum", "batch": "mean"},
        },
    )
    c.augment.flip = 0.5
    c.augment.rotation = 30.0
    c.train.batch_size = 8
    c.pretrained["from"] = "timm/densenet169.tv_in1k"
    c.phases = (common.phase(epochs=20.0, learning_rate=1e-4, stop_after=5),)

    c.eval.evaluators = (
        {
            "name": "cxr_jax.evaluators.by_study.ByStudy",
            "column": "body_part",
            "order": BODY_PARTS,
            "whole": ALL,
            "unit": "patient",  # or study, as the paper drew them
            "of": (
                {"name": "cxr_jax.evaluators.classification.Classification"},
                {"name": "cxr_jax.evaluators.decision.Decision", "threshold": 0.5},
                {
                    "name": "cxr_jax.evaluators.probabilities.Probabilities",
                    "sensitivity": 0.95,
                    "specificity": 0.9,
                },
                {
                    "name": "cxr_jax.evaluators.readers.Readers",
                    "file": "",
                    "protocols": ("majority", "truth"),
                    "threshold": 0.5,
                    "strict": True,  # abnormal above 0.5
                    "tie": "negative",
                    "least": 3,
                    "gold": 3,  # the later paper's reference: how many, or their names
                    "draws": 10_000,
                    "margin": 0.0,
                    "focus": ALL,
                },
                {"name": "cxr_jax.evaluators.kinds.Kinds", "threshold": 0.5},
                {
                    "name": "cxr_jax.evaluators.triage.Triage",
                    "point": "sensitivity@0.95",
                },
            ),
        },
        {"name": "cxr_jax.evaluators.localization.Localization", "boxed": MURA},
    )
    c.eval.reference = (
        f"{READ_LABELS} The test part is the release's `valid` patients: the official test"
        " studies are not public."
    )
    c.eval.resamples = 10_000
    c.eval.samples = 21  # three studies of each body part
    c.report.limits = (
        "The model sees each view alone and averages: no prior films, no history, nothing"
        " that only two views together would show."
    )
    c.report.title = "MURA, abnormal studies of the upper extremity"
    c.report.published = (
        {
            "name": "MURA v4",
            "split": "207 unpublished studies, majority of three radiologists",
            "values": {ALL: 0.929},
            "missing": "those studies and their three radiologists, who are not public",
            "source": "arXiv:1712.06957v4",
        },
    )
    names = (*BODY_PARTS, ALL)
    c.report.reader_study = (
        {
            "name": "MURA v1, Table 2",
            "split": "209 unpublished studies, six radiologists",
            "metric": "f1",
            "average": dict(zip(names, RADIOLOGISTS, strict=True)),
            "model": dict(zip(names, MODEL, strict=True)),
        },
    )
    c.report.published_counts = (
        {
            "name": "MURA v1, Table 1: all 14,982 studies",
            "counts": dict(zip(BODY_PARTS, COUNTS, strict=True)),
        },
    )
    c.report.published_kinds = (
        {
            "name": "MURA v1, section 2.3",
            "studies": 100,
            "counts": {"fracture": 53, "hardware": 48, "degenerative": 35, "other": 29},
        },
    )
    row = ("dataset", "study type", "label", "images")
    c.report.context = tuple(dict(zip(row, one, strict=True)) for one in DATASETS)
    return c


def released(c: config_dict.ConfigDict) -> None:
    """The release's `train` and `valid` lists as they are; there is no test part.

    Judging the part that chose the epoch is model selection, and labelled so.
    """
    c.data.scheme = "released"
    c.eval.splits = ("val",)
    c.eval.reference = f"{READ_LABELS} Judged are the release's `valid` patients, who chose the epoch too."


def padded(c: config_dict.ConfigDict) -> None:
    """Films keep their aspect ratio: scaled by the longer side, centred, black around."""
    c.data.dataset += "_padded"


def phantom(c: config_dict.ConfigDict) -> None:
    """Built-in phantom studies of bones; minutes on two CPU cores.

    Narrowed: two dense blocks of 6 and 8 layers with growth 16 instead of DenseNet-169,
    on one channel at 64 px; the stem is 5×5 (stride 2, then the max-pool), so that maps
    have 8×8 cells. Random start, batch 32, Adam at 3e-3 with warm-up and a cosine instead
    of the plateau; best epoch by validation loss as in the paper. Rotations of up to 10
    degrees.
    """
    padded_ = "_padded" if c.data.dataset.endswith("_padded") else ""
    c.data.dataset = f"phantom_bone/tiny{padded_}"
    c.data.scheme = "patient_disjoint"
    c.pretrained["from"] = ""
    c.task.model = common.network(
        "densenet.DenseNet", blocks=(6, 8), growth=16, stem_width=32, stem_kernel=5
    )
    c.task.channels = 1
    c.task.mean, c.task.std = (0.5,), (0.25,)
    c.augment.rotation = 10.0
    c.train.batch_size = 32
    c.train.log_every = 50
    c.checkpoint.every_steps = 200
    c.eval.batch_size = 64
    c.eval.splits = ("test",)
    c.eval.reference = ""
    c.phases = (
        common.phase(
            epochs=8.0,
            learning_rate=3e-3,
            schedule={"name": "cxr_jax.optim.warmup_cosine", "warmup": 0.1},
        ),
    )
    c.plateau.patience = 0


VARIANTS = {"released": released, "padded": padded, "phantom": phantom}
