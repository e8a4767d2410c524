"""Keys that every recipe has. A recipe fills in its own; nothing here is a paper's."""

from ml_collections import config_dict

# Raised when a key changes its meaning; stands in every config.json.
SCHEMA = 1


def base() -> config_dict.ConfigDict:
    """A config without a recipe: data and task are for the caller to set."""
    c = config_dict.ConfigDict()
    c.schema = SCHEMA
    c.name = ""
    c.variants = ()
    c.seed = 0

    c.data = config_dict.ConfigDict()
    c.data.dataset = ""  # NAME/CONFIG as the builder calls it
    c.data.scheme = "patient_disjoint"  # see cxr_jax.data.splits
    c.data.evaluation = config_dict.ConfigDict()  # films that judge, where others train
    c.data.evaluation.dataset = ""  # empty: the same
    c.data.evaluation.scheme = ""  # empty: the same
    c.data.split_seed = 0  # of the schemes that draw
    c.data.fractions = (0.7, 0.1, 0.2)  # train, val, test; of the schemes that draw
    c.data.patients = 1.0  # share that is used; of random_patient and stratified
    c.data.holdout = 420  # films, of the schemes that set some apart
    c.data.holdout_from = ""  # a listed part to draw them from; empty for all films
    c.data.oversample = config_dict.ConfigDict()
    c.data.oversample.label = ""  # class whose positives are repeated; empty for none
    c.data.oversample.share = 0.5  # of positives in an epoch
    c.data.group = ""  # attribute of films that a loss weighs by, such as body_part
    c.data.truth = False  # learn from true labels, where they are known (phantoms)
    c.data.max_boxes = 16  # per film; more is an error
    c.data.threads = 2  # reading threads per process

    c.pretrained = config_dict.ConfigDict()  # see cxr_jax.models.pretrained
    c.pretrained["from"] = ""  # a public name or a file; empty for random weights
    c.pretrained.head = "fresh"  # or keep
    c.pretrained.layout = ""  # told by the names in the file unless given
    c.pretrained.sha256 = ""  # of the file; checked where given
    c.pretrained.stem = "fit"  # or keep, where films are scaled otherwise
    c.pretrained.redraw = ()  # parameters to draw anew, such as "backbone/*"
    # Of a network of several backbones: name → a source() each, and no file for all.
    c.pretrained.parts = config_dict.ConfigDict()
    c.task = config_dict.ConfigDict()
    c.augment = config_dict.ConfigDict()  # on the device; the defaults do nothing
    c.augment.name = "cxr_jax.data.augment.Augment"
    c.augment.safe_crop = -1.0
    c.augment.flip = 0.0
    c.augment.stretch = (1.0, 1.0)
    c.augment.rotation = 0.0
    c.augment.shear = 0.0
    c.augment.zoom = (1.0, 1.0)
    c.augment.translate = 0.0
    c.augment.crop = (1.0, 1.0)
    c.augment.crop_aspect = (1.0, 1.0)
    c.augment.size = 0  # pixels of a side; 0 as stored
    c.augment.gain = (1.0, 1.0)
    c.augment.brightness = 0.0
    c.augment.contrast = (1.0, 1.0)
    c.augment.blur = 0.0
    c.augment.blur_from = 0.0
    c.augment.blur_share = 1.0
    c.augment.blur_radius = 0  # pixels; 0 for four standard deviations
    c.augment.min_visible = 0.0

    c.train = config_dict.ConfigDict()
    c.train.batch_size = 16  # global, over all devices and processes
    c.train.accumulate = 1  # micro-batches per step
    c.train.log_every = 20
    c.train.profile_steps = (0, 0)  # first and last step of a profiler trace

    c.phases = (phase(),)
    c.plateau = config_dict.ConfigDict()
    c.plateau.factor = 0.1
    c.plateau.patience = 1  # 0 for never
    c.plateau.rtol = 1e-4
    c.plateau.min_scale = 1e-6

    c.checkpoint = config_dict.ConfigDict()
    c.checkpoint.every_steps = 500
    c.checkpoint.keep = 2
    c.checkpoint.metric = "loss"  # of the validation split
    c.checkpoint.mode = "min"

    c.eval = config_dict.ConfigDict()
    c.eval.batch_size = 32
    # Parts judged in full: or SCHEME/PART, of another scheme. Others wait for what is
    # frozen on val, which is judged without intervals where it is not named.
    c.eval.splits = ("test",)
    c.eval.allow_seen = False  # films of another scheme that were trained on
    c.eval.tta = config_dict.ConfigDict()  # test-time augmentation; see cxr_jax.tta
    c.eval.tta.name = ""
    c.eval.tta.size = 0
    c.eval.tta.average = "probs"
    c.eval.mc = config_dict.ConfigDict()  # Monte-Carlo dropout; see cxr_jax.sampled
    c.eval.mc.samples = 0  # passes with a dropout mask each; 0 for none
    c.eval.mc.probs = "mean"  # what is the probability: their mean, or the plain pass
    c.eval.evaluators = (
        {"name": "cxr_jax.evaluators.classification.Classification"},
        {
            "name": "cxr_jax.evaluators.probabilities.Probabilities",
            "sensitivity": 0.9,  # of the point sensitivity@0.9
            "specificity": 0.9,  # of the point specificity@0.9
        },
        {"name": "cxr_jax.evaluators.subgroups.Subgroups"},
        {
            "name": "cxr_jax.evaluators.readers.Readers",
            "file": "",  # CSV of calls; readers.csv of the dataset where empty
            "protocols": ("majority", "each_other", "truth"),
            "threshold": "f1",  # or another frozen point, or a number
            "strict": False,  # True: a score at the threshold is no call
            "tie": "negative",  # or positive, left_out
            "least": 3,  # voters of a majority
            "gold": 0,  # first readers whose majority judges the others; 0 for none
            "draws": 10_000,  # resamples of patients
            "margin": 0.0,  # of non-inferiority, named beforehand; 0 for none
            "focus": "Pneumonia",  # class shown in full; the first where it is not read
        },
    )
    c.eval.reference = ""  # what the labels are, in a sentence; mined ones where empty
    c.eval.mean_classes = ()  # classes of the headline mean; empty for all
    c.eval.resamples = 1000
    c.eval.samples = 12  # films with maps for the report

    c.report = config_dict.ConfigDict()
    c.report.title = ""
    # What the model does not see, in a sentence.
    c.report.limits = (
        "The model sees one frontal film: no prior films, no lateral view, no history."
    )
    c.report.published = ()  # columns: name, source, split, values
    c.report.published_boxes = ()  # rows: name, source, split, values (metric → printed)
    c.report.model = ""  # the network in a word or two, for columns of several runs
    c.report.published_hyperparameters = ()  # pairs: name, value
    c.report.reader_study = ()  # published: name, split, metric, average, model
    c.report.published_counts = ()  # name, counts: type → (normal, abnormal) studies
    c.report.published_kinds = ()  # name, studies, counts: kind → studies
    c.report.context = ()  # rows: dataset, study type, label, images
    c.report.ceilings = config_dict.ConfigDict()  # class → best possible AUROC
    return c


def network(name: str, **sizes: object) -> dict[str, object]:
    """A network of ``cxr_jax.models``, and the type of its activations.

    ``dtype`` may be ``bfloat16``: parameters, statistics and logits stay float32.
    """
    return {"name": f"cxr_jax.models.{name}", "dtype": "float32", **sizes}


def source(name: str = "") -> dict[str, str]:
    """Where the weights of one backbone of several come from; its head is left away."""
    return {"from": name, "layout": "", "sha256": ""}


def phase(**changes: object) -> dict[str, object]:
    """One phase of training: what is frozen, the optimizer, the schedule."""
    default: dict[str, object] = {
        "epochs": 1.0,
        "freeze": (),  # name patterns, such as "backbone/*"; norms keep their statistics
        "thaw": (),  # patterns of those that train nevertheless, such as "*norm*"
        "begin": "last",  # or best: with the weights of the best validation so far
        "optimizer": {"name": "cxr_jax.optim.adam"},
        "optimizer_at_switch": "reset",  # or carry
        "schedule": {"name": "cxr_jax.optim.constant"},
        "learning_rate": 1e-3,
        "clip_norm": 0.0,  # 0 for none
        "stop_after": 0,  # validations without improvement; 0 for never
    }
    return default | changes
