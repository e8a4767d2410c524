"""CheXNet: DenseNet-121 on ChestX-ray14, 14 findings; its variant for pneumonia alone.

Paper:     Rajpurkar et al., "CheXNet: Radiologist-Level Pneumonia Detection on Chest
           X-Rays with Deep Learning", arXiv:1711.05225, v1 (14 November 2017).
Number:    mean AUROC 0.8424 over the 14 findings (Table 1, v1; mean computed).
           Pneumonia alone: AUROC 0.788 on 420 films that were never published.
Command:   python -m data_builders chestxray14/224px --manual_dir=RAW
           python -m cxr_jax.main --config=configs/chexnet.py[:VARIANT,…] --workdir=RUN
Hardware:  one GPU or TPU core with 16 GB; not yet timed on either. Training on CPU
           takes 1.3 films/s a core (`benchmarks/RESULTS.md`, "Training step and inference",
           row "`training_step.py`, CPU": 3,061 ms for 8 films on 2 cores): use the variant
           `phantom`, which takes minutes.

The default is the paper to the letter: random start, all weights trained with Adam
(0.9, 0.999) at 0.01, batches of 16, a tenth of the rate whenever the validation loss
does not fall in an epoch, the epoch with the lowest validation loss kept; films at
224×224, ImageNet mean and standard deviation, random left-right flips; the sum of 14
binary cross-entropies.

Variants, and what they reached elsewhere (nothing of it was measured here):
  pneumonia    one class, its positives oversampled, 420 films set apart: 0.788 (v1)
  v3           the paper's later version, ImageNet start: mean 0.8414 (v3, computed)
  rc           jrzech/reproduce-chexnet, SGD: mean 0.8383 (its figures, mean computed)
  zz           zoogzog/chexnet, random crops and ten-crop test: mean 0.8508 (its page)
  image_level  films instead of patients divided: leaks, to measure how much it flatters
  phantom      computed films, a narrow network; minutes on two CPU cores
  small        with `phantom`: larger films, DenseNet-121 as it is
They combine, as in `pneumonia,v3` or `pneumonia,phantom`. `phantom` brings its own
network, start, optimizer and schedule; it keeps the classes, the split, the loss, the
augmentation and the ten crops of the others.

What the paper leaves open, or its versions tell differently, is a field:
  task.classes        the text lists the findings alphabetically, Table 1 in Wang's
                      order, which is taken; names stand in every file.
  data.scheme         the paper splits 70/10/20 "randomly" and says patient overlap does
                      not matter. Default: the public patient-disjoint lists.
  phases.0.epochs     not given: 20, cut short after 5 validations without improvement
                      (phases.0.stop_after).
  plateau.rtol        what counts as a plateau: an improvement below 1e-4, relative.
  data.oversample     "we oversample the minority (positive) class", no ratio: half of
                      each epoch is positive (share), each other film comes once.
  data.holdout        what stands in for the 420 test films, drawn at random from all as
  data.holdout_from   the paper's were; see `pneumonia`.
  pretrained          random start in v1, ImageNet in v3.
The rate of 0.01 with Adam from a random start is in no public reproduction: see `rc`.

Deviations: films are reduced to 224×224 once, when the dataset is built, with an area
filter; the paper does not name its filter.
"""

import json
import pathlib

from ml_collections import config_dict

from configs import common
from cxr_jax.labels import NIH14

# Table 1 of v1, and the AUROCs of v3 (25 December 2017) as public reproductions quote
# them; Wang et al. (CVPR 2017) and Yao et al. (arXiv:1710.10501) as v1 quotes them; and
# the figures that jrzech/reproduce-chexnet published with its predictions (2022), the
# only ones whose films everybody has. Before the comma: their split. In the order of
# NIH14.
PUBLISHED = {
    "Wang et al. 2017": "their own, .716 .807 .784 .609 .706 .671 .633 .806 .708"
    " .835 .815 .769 .708 .767",
    "Yao et al. 2017": "their own, .772 .904 .859 .695 .792 .717 .713 .841 .788 .882 .829"
    " .767 .765 .914",
    "CheXNet v1": "random 70/10/20, .8209 .9048 .8831 .7204 .8618 .7766 .7632 .8932"
    " .7939 .8932 .9260 .8044 .8138 .9387",
    "CheXNet v3": "patient-disjoint 70/10/20, .8094 .9248 .8638 .7345 .8676 .7802 .7680"
    " .8887 .7901 .8878 .9371 .8047 .8062 .9164",
    "reproduce-chexnet": "patient-disjoint 70/10/20 (public lists), .8180 .9090 .8827"
    " .7156 .8377 .7756 .7617 .8776 .8002 .8945 .9316 .8251 .7889 .9175",
}
LISTS = "the list of its test films, which was not published"
# What more is known of a column: what nobody has, or which films it was measured on.
# ``positives``: films of each class in the label table v2020.
ABOUT = {
    "Wang et al. 2017": {
        "missing": LISTS,
        "source": "CVPR 2017, as CheXNet v1 quotes it",
    },
    "Yao et al. 2017": {"missing": LISTS, "source": "arXiv:1710.10501, likewise"},
    "CheXNet v1": {"missing": LISTS, "source": "arXiv:1711.05225v1, Table 1"},
    "CheXNet v3": {
        "missing": LISTS,
        "source": "arXiv:1711.05225v3, as reproductions quote it",
    },
    "reproduce-chexnet": {
        "source": "jrzech/reproduce-chexnet, 2022",
        "dataset": "chestxray14",
        "split_sha256": (
            "a20c79828a7825d1d5ac7e8e1b2eccdb21db7e87f9449415f40896116264d55a"
        ),
        "positives": dict(
            zip(
                NIH14,
                (2423, 582, 2756, 3944, 1139, 1337, 260, 1089, 957, 413, 509, 362, 734)
                + (42,),
                strict=True,
            )
        ),
    },
}
CEILINGS = (
    pathlib.Path(__file__).parents[1] / "data_builders/phantom_chest/ceilings.json"
)


def get_config() -> config_dict.ConfigDict:
    """The paper's recipe for 14 findings."""
    c = common.base()
    c.name = "chexnet"
    c.data.dataset = "chestxray14/224px"

    c.task.name = "cxr_jax.tasks.classify.Classify"
    c.task.classes = NIH14
    c.task.model = common.network("densenet.densenet121")
    c.task.head = {"name": "cxr_jax.models.heads.PoolThenClassify"}
    c.task.channels = 3
    c.task.maps = "cam"
    c.task.size = 0  # pixels of the middle that is read; 0 for whole films
    c.task.mean = (0.485, 0.456, 0.406)
    c.task.std = (0.229, 0.224, 0.225)
    c.task.terms = (
        {
            "name": "bce",
            "fn": {"name": "cxr_jax.losses.bce"},
            "weight": 1.0,
            "reduce": {"classes": "sum", "batch": "mean"},
        },
    )
    c.augment.flip = 0.5
    c.eval.evaluators += ({"name": "cxr_jax.evaluators.localization.Localization"},)

    c.phases = (common.phase(epochs=20.0, learning_rate=0.01, stop_after=5),)
    c.report.title = "CheXNet, 14 findings"
    c.report.published = tuple(_column(*item) for item in PUBLISHED.items())
    return c


def _column(name: str, text: str) -> dict[str, object]:
    split, numbers = text.split(", ")
    values = {k: float(v) for k, v in zip(NIH14, numbers.split(), strict=True)}
    return {"name": name, "split": split, "values": values, **ABOUT[name]}


def pneumonia(c: config_dict.ConfigDict) -> None:
    """Pneumonia against all else, as the paper's first half (v1, sections 2 and 3).

    One output, unweighted binary cross-entropy; positives repeated until they are half of
    each epoch. The paper divides "the entire dataset" 80/20 and tests on 420 other films
    that it keeps: here 420 films are drawn first, further films of their patients are left
    out (v3 counts 105,408 of 112,120 films in its parts), and patients of the rest are
    divided 80/20. Evaluating on the 20% alone is model selection, and labelled so.

    Validation is at natural prevalence, so its loss judges oversampled probabilities as
    they are; the report calibrates them.

    Reached elsewhere: AUROC 0.788 against the majority of three of four radiologists
    (v1, Figure 2); not comparable with mined labels.
    """
    c.task.classes = ("Pneumonia",)
    c.data.scheme = "set_apart"
    c.data.fractions = (0.8, 0.2, 0.0)
    c.data.oversample.label = "Pneumonia"
    c.report.title = "CheXNet, pneumonia"
    c.report.published = (
        {
            "name": "CheXNet v1",
            "split": "420 unpublished films, labels of radiologists",
            "values": {"Pneumonia": 0.788},
        },
    )


def v3(c: config_dict.ConfigDict) -> None:
    """The paper's later version (25 December 2017): ImageNet start, Adam at 0.001.

    With `pneumonia`: nothing is oversampled; the cross-entropy is weighted by
    w₊ = |N| / (|P| + |N|) and w₋ = |P| / (|P| + |N|), counted on the training part; and
    of the patients without test films 28,744 train and 1,672 validate. v3's 420 films
    were of 389 patients; 420 drawn at random are of about 408.

    Reached elsewhere: mean AUROC 0.8414 (as public reproductions quote it, computed);
    pneumonia F1 .435 (.387, .481) on the 420 films.
    """
    _from_imagenet(c)
    c.phases = (common.phase(epochs=20.0, learning_rate=1e-3, stop_after=5),)
    if c.data.oversample.label:
        c.data.oversample.label = ""
        patients = 28_744 + 1_672
        c.data.fractions = (28_744 / patients, 1_672 / patients, 0.0)
        c.task.terms = (
            {
                **c.task.terms[0],
                "fn": {
                    "name": "cxr_jax.losses.weighted_bce",
                    "w_pos": "negative_share",
                    "w_neg": "positive_share",
                },
            },
        )
        c.report.published = ()  # F1, at a threshold that is not stated


def rc(c: config_dict.ConfigDict) -> None:
    """jrzech/reproduce-chexnet: SGD with momentum 0.9 at 0.01, L2 1e-4, ImageNet start.

    Batches of 16; the mean over classes, not their sum; a tenth of the rate after every
    epoch without improvement, however small; stop after three in a row, at most 100
    epochs; flips; short side to 224 and the middle, which of square films is all.

    Reached elsewhere: mean AUROC 0.8383 (computed from its figures), validation loss
    best at epoch 6.

    Deviation: its momentum starts anew whenever the rate falls; here it goes on.
    """
    _from_imagenet(c)
    _mean_over_classes(c)
    optimizer = {"name": "cxr_jax.optim.sgd", "momentum": 0.9, "l2": 1e-4}
    c.phases = (
        common.phase(
            epochs=100.0, learning_rate=0.01, optimizer=optimizer, stop_after=3
        ),
    )
    c.plateau.rtol = 1e-9


def zz(c: config_dict.ConfigDict) -> None:
    """zoogzog/chexnet: random crops, Adam at 1e-4 with L2 1e-5, ten-crop test.

    ImageNet start, batches of 16, the mean over classes, 100 epochs; a tenth of the rate
    when more than 5 epochs in a row are stale; crops of 8% to 100% of the film's area,
    3:4 to 4:3, enlarged to 224×224, and flips; the test averages the probabilities of ten
    crops of 224 pixels of films of 256.

    Reached elsewhere: mean AUROC 0.8508, on a split of its own.

    Deviations: it validates with random crops; here the middle of 224 pixels is read. It
    crops films of 1024 pixels, here of 256, bilinear without averaging; a crop that would
    leave the film is cut instead of drawn again.
    """
    _from_imagenet(c)
    _mean_over_classes(c)
    c.data.dataset = "chestxray14/256px"
    optimizer = {"name": "cxr_jax.optim.adam", "l2": 1e-5}
    c.phases = (common.phase(epochs=100.0, learning_rate=1e-4, optimizer=optimizer),)
    c.plateau.patience = 6  # stale epochs that cut the rate; torch's 5 must be exceeded
    c.augment.crop = (0.08, 1.0)
    c.augment.crop_aspect = (3 / 4, 4 / 3)
    c.augment.size = c.task.size = 224
    c.eval.tta.name = "cxr_jax.tta.TenCrop"
    c.eval.tta.size = 224


def _from_imagenet(c: config_dict.ConfigDict) -> None:
    c.pretrained["from"] = "timm/densenet121.tv_in1k"


def _mean_over_classes(c: config_dict.ConfigDict) -> None:
    (term,) = c.task.terms
    c.task.terms = ({**term, "reduce": {"classes": "mean", "batch": "mean"}},)


def image_level(c: config_dict.ConfigDict) -> None:
    """Splits films, not patients: leaks on purpose, to measure how much it flatters.

    With `pneumonia` the films set apart stay free of it; training and validation do not.
    """
    apart = c.data.scheme == "set_apart"
    c.data.scheme = "set_apart_image_level" if apart else "image_level"


def phantom(c: config_dict.ConfigDict) -> None:
    """Built-in phantom films; minutes on two CPU cores.

    Narrowed: two dense blocks of 4 and 6 layers with growth 16 instead of DenseNet-121,
    on one channel at 64 px; the stem is 5×5 (stride 2, then the max-pool), so that maps
    have 8×8 cells. Batch 32, Adam at 3e-3 with warm-up and a cosine instead of the
    plateau, 9 epochs; best epoch by validation loss as in the paper. The head's bias
    starts at a prior of 0.1 instead of 0.5: else its weights carry the prevalence for
    epochs, and weak maps peak in the corners. Oversampled epochs are twice as long: half
    as many, and no such prior. Crops of 224 of 256 pixels become 56 of 64. Films are
    set apart from the phantom's test part, the only one that its readers saw.
    """
    c.data.dataset = "phantom_chest/tiny"
    if c.data.scheme.startswith("set_apart"):
        c.data.holdout_from = "patient_disjoint/test"
    for group in (c.augment, c.task, c.eval.tta):
        group.size = group.size * 64 // 256
    c.pretrained["from"] = ""
    c.task.model = common.network(
        "densenet.DenseNet", blocks=(4, 6), growth=16, stem_width=32, stem_kernel=5
    )
    if not c.data.oversample.label:
        c.task.head["prior"] = 0.1
    c.task.channels = 1
    c.task.mean, c.task.std = (0.5,), (0.25,)
    c.train.batch_size = 32
    c.train.log_every = 50
    c.checkpoint.every_steps = 200
    c.eval.batch_size = 64
    c.phases = (
        common.phase(
            epochs=4.5 if c.data.oversample.label else 9.0,
            learning_rate=3e-3,
            schedule={"name": "cxr_jax.optim.warmup_cosine", "warmup": 0.1},
        ),
    )
    c.plateau.patience = 0
    _oracle(c, "tiny")


def small(c: config_dict.ConfigDict) -> None:
    """With `phantom`: films of 128 px and DenseNet-121 as it is; minutes on a GPU.

    Adam at 1e-3, 12 epochs. Its maps have 4×4 cells, too few to say where a finding is:
    none are made. Used by `benchmarks/phantom_small.py`.
    """
    c.data.dataset = "phantom_chest/small"
    c.task.model = common.network("densenet.densenet121")
    c.task.maps = ""
    c.eval.evaluators = tuple(
        e for e in c.eval.evaluators if not e["name"].endswith(".Localization")
    )
    (phase,) = c.phases
    c.phases = ({**phase, "epochs": 12.0, "learning_rate": 1e-3},)
    _oracle(c, "small")


def _oracle(c: config_dict.ConfigDict, size: str) -> None:
    """Ceilings of the classes; the headline's mean runs over those of 0.9 and more."""
    found = json.loads(CEILINGS.read_text())[size]["classes"]
    ceilings = {name: found[name]["ceiling"] for name in c.task.classes}
    c.report.ceilings = ceilings
    c.eval.mean_classes = tuple(name for name, best in ceilings.items() if best >= 0.9)


VARIANTS = {
    "pneumonia": pneumonia,
    "v3": v3,
    "rc": rc,
    "zz": zz,
    "image_level": image_level,
    "phantom": phantom,
    "small": small,
}
