"""Attention fusion: DenseNet-121 beside EfficientNet-B3, and three baselines, on ChestX-ray14.

Paper:     Roy, Hirpara and Bhanushali, "Chest X-Ray Image Classification using Deep
           Learning approach", project report, Northeastern University, undated.
Number:    macro AUROC 0.8156 on a test part of its own (Table 2; the mean of its rounded
           rows is 0.8164): Simple CNN 0.6558, DenseNet-121 0.7096, EfficientNet-B0 0.7363.
Command:   python -m data_builders chestxray14/224px --manual_dir=RAW
           python -m cxr_jax.main --config=configs/fusion.py[:VARIANT,…] --workdir=RUN
           python -m cxr_jax.main --mode=report --workdir=A --runs=B,C,D
Hardware:  one GPU or TPU core with 16 GB; not yet timed on either. On CPU use the variant
           `phantom`, which takes minutes.

The default is the Dense-Efficient Attention-Fusion Network as the report counts it
(10,638,528 parameters, Keras' way): ImageNet weights in both backbones; first the fusion
layers alone, Adam at 1e-3, then everything at 1e-5; batches of 32 films of 224×224; focal
loss with α 0.25 and γ 2; the epoch with the best validation AUROC kept; half of the
patients, stratified 70/10/20; 100 passes of Monte-Carlo dropout.

Variants; nothing of them was measured on real films here:
  simple_cnn       three convolutions, random start, one phase: 0.6558 (Table 2)
  densenet121      with a hidden layer of 512 units: 0.7096
  efficientnet_b0  likewise: 0.7363
  fusion           the default, by its name: 0.8156
  dense_alone      the fusion's DenseNet-121 under the fusion's head
  efficient_alone  the fusion's EfficientNet-B3 under the fusion's head
  no_attention     the fusion without attention: γ is 0 and stays 0
  bce              cross-entropy instead of the focal loss
  all_patients     all patients instead of half of them
  phantom          computed films, narrow networks; minutes on two CPU cores
They combine: `fusion,bce`, `densenet121,phantom`.

What the report leaves open, or tells differently in two places, is a field:
  task.terms          its formula has one α for both signs although its text says that α
                      balances them: `treatment`, one of constant (the formula, default),
                      balanced, none.
  task.head.dropout   0.4 in the text on the baselines, 0.5 in Table 1 and for the fusion.
  eval.mc.samples     25 passes in the introduction, 100 in the results.
  phases              25 epochs: 10 for the first phase at most, 15 for the second; each
                      ends after 5 validations without a better AUROC. The second phase
                      begins with the best weights of the first.
  phases.0.thaw       whether norms of frozen backbones train in the first phase; code that
                      fits the report's counts lets those of the fusion do so:
                      ("*norm*",).
  phases.0.learning_rate  of the Simple CNN: 1e-3 in Table 1; that code has 1e-4.
  augment             "rotations (10%)" read as Keras' RandomRotation(0.1): 36 degrees
                      either way; 18 (a tenth of a half turn) and 10 are other readings.
                      "zooming (10%)": RandomZoom(0.1), a magnification of 1/1.1 to 1/0.9.
                      "brightness (10%)": a tenth of the whole range, either way.
  task.model.films    what each backbone of the fusion is given: Keras' EfficientNet
                      scales pixels itself, its DenseNet does not, and the report gives
                      both the same tensor without saying which.
  data.patients       half of the patients by its text; 1.0 for all, see `all_patients`.
"Minimum learning rate 1e-5" in Table 1 is the rate of the second phase, no floor.
The report calls its attention "cross-attention" in one sentence and self-attention in the
next; its parameter count is that of self-attention over the joined map.

Deviations: pixels from outside a rotated film are black, Keras mirrors the border. The
report does not say that patients were kept apart: here they are.
"""

import json
import pathlib

from ml_collections import config_dict

from configs import common
from cxr_jax.labels import NIH14

# Table 2, in the report's own order of classes.
CLASSES = (
    *("Cardiomegaly", "Emphysema", "Effusion", "Hernia", "Infiltration", "Mass"),
    *("Nodule", "Atelectasis", "Pneumothorax", "Pleural_Thickening", "Pneumonia"),
    *("Fibrosis", "Edema", "Consolidation"),
)
PUBLISHED = {
    "Simple CNN": ".68 .57 .76 .59 .65 .55 .59 .67 .67 .65 .72 .59 .79 .69",
    "DenseNet121": ".62 .77 .85 .68 .62 .68 .64 .71 .79 .71 .73 .69 .75 .69",
    "EfficientNetB0": ".74 .77 .85 .53 .67 .68 .72 .76 .80 .75 .74 .67 .85 .77",
    "Fusion Network": ".91 .93 .86 .94 .68 .82 .72 .79 .83 .74 .65 .85 .86 .85",
}
CEILINGS = (
    pathlib.Path(__file__).parents[1] / "data_builders/phantom_chest/ceilings.json"
)
# Keras' batch norms; its DenseNet adds another epsilon than its EfficientNet.
DENSE = {
    "name": "cxr_jax.models.densenet.densenet121",
    "epsilon": 1.001e-5,
    "momentum": 0.99,
}
IMAGENET = {
    "dense": "keras/densenet121-notop",
    "efficient": "keras/efficientnet_b3-notop",
}
# Table 1, under the names that our own rows have.
TABLE_1 = (
    ("Optimizer", "Adam"),
    ("Metrics", "AUC"),
    ("Epochs", "25"),
    ("Learning rate, phase 1", "1e-3, initial"),
    ("Learning rate, phase 2", "1e-5, minimum"),
    ("Loss, alpha", "0.25"),
    ("Loss, gamma", "2.0"),
    ("Dropout", "0.5; 0.4 in the text on the baselines"),
    ("Batch size", "32"),
    ("Monte-Carlo passes", "100; 25 in the introduction"),
)


def get_config() -> config_dict.ConfigDict:
    """The fusion network, 14 findings."""
    c = common.base()
    c.name = "fusion"
    c.data.dataset = "chestxray14/224px"
    c.data.scheme = "stratified"
    c.data.patients = 0.5

    c.task.name = "cxr_jax.tasks.classify.Classify"
    c.task.classes = NIH14
    c.task.model = common.network(
        "fusion.AttentionFusion",
        dense={**DENSE, "until": "block4"},
        efficient={
            "name": "cxr_jax.models.efficientnet.efficientnet_b3",
            "until": "block6a_expand",
        },
        width=256,
        attention="learned",
        films="normalised",
    )
    c.task.head = {"name": "cxr_jax.models.heads.PoolThenClassify", "dropout": 0.5}
    c.task.channels = 3
    c.task.maps = "cam"
    c.task.size = 0  # pixels of the middle that is read; 0 for whole films
    c.task.mean = (0.485, 0.456, 0.406)
    c.task.std = (0.229, 0.224, 0.225)
    c.task.terms = (
        {
            "name": "focal",
            "fn": {
                "name": "cxr_jax.losses.focal",
                "gamma": 2.0,
                "alpha": 0.25,
                "treatment": "constant",
            },
            "weight": 1.0,
            "reduce": {"classes": "mean", "batch": "mean"},
        },
    )
    c.pretrained.parts.dense = common.source(IMAGENET["dense"])
    c.pretrained.parts.efficient = common.source(IMAGENET["efficient"])
    c.augment.flip = 0.5
    c.augment.rotation = 36.0
    c.augment.zoom = (1 / 1.1, 1 / 0.9)
    c.augment.brightness = 0.1

    c.train.batch_size = 32
    c.phases = _two_phases("backbone/dense/*", "backbone/efficient/*")
    c.plateau.patience = 0
    c.checkpoint.metric, c.checkpoint.mode = "auroc", "max"
    c.eval.mc.samples = 100
    # Readers were not asked, and are called on films of another split.
    c.eval.evaluators = (
        *(e for e in c.eval.evaluators if not e["name"].endswith(".Readers")),
        {"name": "cxr_jax.evaluators.localization.Localization"},
        {"name": "cxr_jax.evaluators.uncertainty.Uncertainty", "threshold": 0.1},
    )
    c.report.title = "Attention fusion, 14 findings"
    c.report.model = "Fusion network"
    c.report.published = tuple(_column(*item) for item in PUBLISHED.items())
    c.report.published_hyperparameters = TABLE_1
    return c


def _column(name: str, text: str) -> dict[str, object]:
    numbers = map(float, text.split())
    values = dict(zip(CLASSES, numbers, strict=True))
    return {
        "name": name,
        "split": "70/10/20 of half the patients, their own",
        "source": "project report, Table 2, two digits",
        "missing": "the list of its test films, which was not published",
        "values": {name: values[name] for name in NIH14},
    }


def _two_phases(*freeze: str) -> tuple[dict[str, object], ...]:
    return (
        common.phase(epochs=10.0, learning_rate=1e-3, freeze=freeze, stop_after=5),
        common.phase(epochs=15.0, learning_rate=1e-5, begin="best", stop_after=5),
    )


def _start(c: config_dict.ConfigDict, name: str) -> None:
    """One file for the whole network; random weights where it is empty."""
    c.pretrained["from"] = name
    c.pretrained.parts = config_dict.ConfigDict()


def _hidden(c: config_dict.ConfigDict, hidden: int, dropout: float) -> None:
    """A head with a hidden layer; class activation maps need one without."""
    c.task.head = {
        "name": "cxr_jax.models.heads.PoolHiddenClassify",
        "hidden": hidden,
        "dropout": dropout,
    }
    c.task.maps = "grad_cam"


def simple_cnn(c: config_dict.ConfigDict) -> None:
    """Three convolutions and a hidden layer, 129,870 parameters; 0.6558 (Table 2).

    Random start, all trained at once at 1e-3, 25 epochs. Nothing is dropped out, so there
    is no Monte-Carlo dropout.
    """
    c.task.model = common.network("simple_cnn.SimpleCNN")
    _hidden(c, 256, 0.0)
    _start(c, "")
    c.phases = (common.phase(epochs=25.0, learning_rate=1e-3, stop_after=5),)
    c.eval.mc.samples = 0
    c.eval.evaluators = tuple(
        e for e in c.eval.evaluators if not e["name"].endswith(".Uncertainty")
    )
    c.report.model = "Simple CNN"


def densenet121(c: config_dict.ConfigDict) -> None:
    """DenseNet-121 under a hidden layer of 512 units, 7,569,486 parameters as Keras
    counts; 531,982 of them train in the first phase; 0.7096 (Table 2)."""
    c.task.model = {**DENSE, "dtype": c.task.model["dtype"]}
    _hidden(c, 512, 0.4)
    _start(c, IMAGENET["dense"])
    c.phases = _two_phases("backbone/*")
    c.report.model = "DenseNet-121"


def efficientnet_b0(c: config_dict.ConfigDict) -> None:
    """EfficientNet-B0 likewise, 4,712,625 parameters; 663,054 of them train in the first
    phase; 0.7363 (Table 2)."""
    c.task.model = common.network("efficientnet.efficientnet_b0")
    _hidden(c, 512, 0.4)
    _start(c, "keras/efficientnet_b0-notop")
    c.phases = _two_phases("backbone/*")
    c.report.model = "EfficientNet-B0"


def fusion(c: config_dict.ConfigDict) -> None:
    """The default, by its name: 10,638,528 parameters; 0.8156 (Table 2)."""
    del c


def dense_alone(c: config_dict.ConfigDict) -> None:
    """The fusion's DenseNet-121, cut where it is, under the fusion's head."""
    _alone(c, "dense", "DenseNet-121 alone")


def efficient_alone(c: config_dict.ConfigDict) -> None:
    """The fusion's EfficientNet-B3, cut where it is, under the fusion's head."""
    _alone(c, "efficient", "EfficientNet-B3 alone")


def _alone(c: config_dict.ConfigDict, part: str, name: str) -> None:
    c.task.model = {**c.task.model[part], "dtype": c.task.model["dtype"]}
    _start(c, IMAGENET[part])
    c.phases = _two_phases("backbone/*")
    c.report.model = name


def no_attention(c: config_dict.ConfigDict) -> None:
    """The fusion without attention: γ is 0 and stays 0, so nothing is built for it."""
    c.task.model["attention"] = "off"
    c.report.model = "Fusion without attention"


def bce(c: config_dict.ConfigDict) -> None:
    """Cross-entropy instead of the focal loss."""
    c.report.model += ", cross-entropy"
    (term,) = c.task.terms
    c.task.terms = ({**term, "name": "bce", "fn": {"name": "cxr_jax.losses.bce"}},)


def all_patients(c: config_dict.ConfigDict) -> None:
    """All patients; the report took half of them to save time."""
    c.data.patients = 1.0
    c.report.model += ", all patients"


def phantom(c: config_dict.ConfigDict) -> None:
    """Built-in phantom films; minutes on two CPU cores.

    Narrowed, on one channel at 64 px: DenseNet-121 to two dense blocks of 6 and 8 layers
    with growth 16 and a 5×5 stem; EfficientNet to half the width of B0, cut where its maps
    have 8×8 cells (`block4a_expand`); the fusion takes 64 features of each; hidden layers
    of the two baselines have 128 units. The Simple CNN is as it is; its maps have 6×6
    cells, too few to say where a finding is: none are made. Random start, so the first phase only shows that the
    head trains alone: one epoch of it. Adam at 3e-3 with warm-up and a cosine in the
    second, 5 epochs (the fusion, which takes longest, 4), no early stop; batch norms forget ten times faster (0.9), and the
    head's bias starts at a prior of 0.1. All patients. Rotations of up to 10 degrees: at
    36 the phantom's findings, of a few pixels, take longer than minutes to learn.
    """
    c.data.dataset = "phantom_chest/tiny"
    c.data.patients = 1.0
    _start(c, "")
    c.task.channels = 1
    c.task.mean, c.task.std = (0.5,), (0.25,)
    c.task.model = {**_narrow(c.task.model), "dtype": c.task.model["dtype"]}
    c.task.head["prior"] = 0.1
    if c.task.model["name"].endswith(".SimpleCNN"):
        _without_maps(c)
    elif "hidden" in c.task.head:
        c.task.head["hidden"] = 128
    c.augment.rotation = 10.0
    c.train.log_every = 50
    c.checkpoint.every_steps = 200
    c.eval.batch_size = 64
    *first, last = c.phases
    epochs = 4.0 if "dense" in c.task.model else 5.0
    last = {**last, "epochs": epochs, "learning_rate": 3e-3, "stop_after": 0}
    last["schedule"] = {"name": "cxr_jax.optim.warmup_cosine", "warmup": 0.1}
    c.phases = (*({**phase, "epochs": 1.0} for phase in first), last)
    found = json.loads(CEILINGS.read_text())["tiny"]["classes"]
    ceilings = {name: found[name]["ceiling"] for name in c.task.classes}
    c.report.ceilings = ceilings
    c.eval.mean_classes = tuple(name for name, best in ceilings.items() if best >= 0.9)


def _narrow(model: dict) -> dict:
    """The network, or each of its two, in a size for 64 px."""
    name = model["name"].rpartition(".")[2]
    if name == "AttentionFusion":
        parts = {part: _narrow(model[part]) for part in ("dense", "efficient")}
        return {**model, **parts, "width": 64, "mean": (0.5,), "std": (0.25,)}
    if name.startswith("densenet"):
        cut = {"until": "block2"} if "until" in model else {}
        return {
            "name": "cxr_jax.models.densenet.DenseNet",
            "blocks": (6, 8),
            "growth": 16,
            "stem_width": 32,
            "stem_kernel": 5,
            **cut,
        }
    if name.startswith("efficientnet"):
        return {
            "name": "cxr_jax.models.efficientnet.EfficientNet",
            "width": 0.5,
            "until": "block4a_expand",
            "momentum": 0.9,
        }
    return model


def _without_maps(c: config_dict.ConfigDict) -> None:
    c.task.maps = ""
    c.eval.evaluators = tuple(
        e for e in c.eval.evaluators if not e["name"].endswith(".Localization")
    )


_NETWORKS = ("simple_cnn", "densenet121", "efficientnet_b0")
_NETWORKS += ("dense_alone", "efficient_alone")
ONE_OF = ((*_NETWORKS, "fusion"), (*_NETWORKS, "no_attention"))
VARIANTS = {
    "simple_cnn": simple_cnn,
    "densenet121": densenet121,
    "efficientnet_b0": efficientnet_b0,
    "fusion": fusion,
    "dense_alone": dense_alone,
    "efficient_alone": efficient_alone,
    "no_attention": no_attention,
    "bce": bce,
    "all_patients": all_patients,
    "phantom": phantom,
}
