"""Weights of six libraries give the logits that those libraries give; misfits are told."""

import collections
import dataclasses
import functools
import sys
import types

import cv2
import h5py
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from keras.src.applications import densenet as keras_densenet  # any depth

from cxr_jax import labels, loading
from cxr_jax.data import augment
from cxr_jax.errors import CheckpointError, ConfigError
from cxr_jax.models import (
    archives,
    densenet,
    efficientnet,
    exporting,
    gray,
    heads,
    hub,
    keras_names,
    layouts,
    pretrained,
    state,
    torch_names,
)
from cxr_jax.models.passport import Passport

torch = pytest.importorskip("torch", reason="torch is not installed; see CONTRIBUTING")

MEAN, STD = layouts.IMAGENET_MEAN, layouts.IMAGENET_STD
TINY = {"blocks": (2, 1), "growth": 4, "stem_width": 8}


# Torch: the structure and the names of torchvision, written anew ----------------------


class Layer(torch.nn.Sequential):
    def __init__(self, width, growth):
        super().__init__()
        self.add_module("norm1", torch.nn.BatchNorm2d(width))
        self.add_module("relu1", torch.nn.ReLU())
        self.add_module("conv1", torch.nn.Conv2d(width, 4 * growth, 1, bias=False))
        self.add_module("norm2", torch.nn.BatchNorm2d(4 * growth))
        self.add_module("relu2", torch.nn.ReLU())
        conv = torch.nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.add_module("conv2", conv)

    def forward(self, x):
        return torch.cat([x, super().forward(x)], 1)


class DenseNet(torch.nn.Module):
    def __init__(self, classes, channels=3, blocks=(2, 1), growth=4, stem_width=8):
        super().__init__()
        nn, width = torch.nn, stem_width
        self.features = nn.Sequential()
        add = self.features.add_module
        add("conv0", nn.Conv2d(channels, width, 7, 2, 3, bias=False))
        add("norm0", nn.BatchNorm2d(width))
        add("relu0", nn.ReLU())
        add("pool0", nn.MaxPool2d(3, 2, 1))
        for n, depth in enumerate(blocks, 1):
            block = nn.Sequential()
            for i in range(depth):
                block.add_module(f"denselayer{i + 1}", Layer(width, growth))
                width += growth
            add(f"denseblock{n}", block)
            if n < len(blocks):
                step = nn.Sequential()
                step.add_module("norm", nn.BatchNorm2d(width))
                step.add_module("relu", nn.ReLU())
                width //= 2
                step.add_module("conv", nn.Conv2d(2 * width, width, 1, bias=False))
                step.add_module("pool", nn.AvgPool2d(2, 2))
                add(f"transition{n}", step)
        add("norm5", nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x):
        x = torch.relu(self.features(x)).mean((2, 3))
        return self.classifier(x)


@functools.cache
def torch_net(classes=14, channels=3, sequential=False, **sizes):
    """Random weights that keep activations of order one, statistics included."""
    net = DenseNet(classes, channels, **sizes)
    generator = torch.Generator().manual_seed(classes + channels)
    with torch.no_grad():
        for name, x in net.state_dict().items():
            draw = torch.randn(x.shape, generator=generator)
            if name.endswith("num_batches_tracked"):
                continue
            if x.ndim > 1:
                x.copy_(draw * (2 / x[0].numel()) ** 0.5)
            elif name.endswith(("var", "norm1.weight", "norm2.weight")):
                x.copy_(1 + 0.3 * torch.tanh(draw))
            else:
                x.copy_(0.1 * draw + ("norm" in name and name.endswith("weight")))
    if sequential:
        net.classifier = torch.nn.Sequential(net.classifier, torch.nn.Sigmoid())
    return net.eval()


@pytest.fixture(scope="module")
def films(request):
    """Real films in [0, 1], ``[4, 64, 64, 1]``; where there are none, noise."""
    try:
        folder = request.getfixturevalue("real_dir") / "nih" / "images_64px"
        paths = sorted(folder.glob("*.png"))[::250]
        images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
        images = np.stack(images)[..., None].astype(np.float32) / 255
    except pytest.skip.Exception:
        images = np.random.default_rng(0).random((4, 64, 64, 1), np.float32)
    assert images.shape == (4, 64, 64, 1)
    return images


def logits_of_torch(net, films, mean, std):
    """Of the linear layer, below any sigmoid."""
    x = (np.repeat(films, len(mean), -1).astype(np.float64) - mean) / std
    x = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32))
    caught = []
    linear = getattr(net.classifier, "0", net.classifier)
    hook = linear.register_forward_hook(lambda _, __, y: caught.append(y))
    with torch.no_grad():
        net(x)
    hook.remove()
    return caught[0].numpy()


# Ours --------------------------------------------------------------------------------


@functools.cache
def model(build=densenet.DenseNet, classes=14, channels=3, **sizes):
    """The definition, and a compiled (params, rest, films) → logits."""

    def create(key):
        rngs = nnx.Rngs(params=key)
        backbone = build(**(sizes or TINY), in_channels=channels, rngs=rngs)
        features = backbone.num_features()
        head = heads.PoolThenClassify(features, classes, rngs=rngs)
        return heads.Classifier(backbone, head)

    modeldef = state.ModelDef.of(create)
    run = jax.jit(lambda p, r, x: modeldef.merge(p, r)(x))
    return state.flatten(modeldef.params), state.flatten(modeldef.rest), run


def load(path, names, *, head="keep", layout="", sha256="", stem="fit", **kwargs):
    spec = {"from": str(path), "head": head, "layout": layout, "sha256": sha256}
    spec["stem"] = stem
    return pretrained.load(spec, *names[:2], **kwargs)


def logits_of(imported, names, films):
    passport = imported.passport
    x = augment.normalize(
        jnp.asarray(films),
        mean=passport.mean,
        std=passport.std,
        channels=passport.channels,
    )
    return names[2](imported.params, imported.rest, x)


def assert_same(logits, expected):
    scale = np.abs(expected).max()
    assert scale > 0.05 and np.ptp(expected) > 0.05
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * scale)


def old(weights):
    """Keys of torchvision before 0.3: ``norm.1``."""
    renamed = collections.OrderedDict()
    for key, value in weights.items():
        for kind in ("norm", "conv"):
            for n in "12":
                key = key.replace(f".{kind}{n}.", f".{kind}.{n}.")
        renamed[key] = value
    return renamed


def prefixed(weights, prefix):
    return collections.OrderedDict((prefix + k, v) for k, v in weights.items())


@pytest.fixture
def as_torchvision(monkeypatch):
    """Pickles of these classes name torchvision, as whole saved models do."""

    def rename(module):
        parts = module.split(".")
        for n in range(len(parts)):
            name = ".".join(parts[: n + 1])
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        for cls in (DenseNet, Layer):
            monkeypatch.setattr(cls, "__module__", module)
            setattr(sys.modules[module], cls.__name__, cls)

    return rename


def write(kind, net, path, as_torchvision):
    """A file as the users of that layout have it."""
    weights = net.state_dict()
    older = {"_use_new_zipfile_serialization": False}
    if kind == "torchvision":
        torch.save(weights, path)
    elif kind == "torchvision, old keys":
        torch.save(old(weights), path, **older)
    elif kind == "torchvision, training script":
        wrapped = prefixed(weights, "module.densenet121.")
        torch.save({"epoch": 3, "model_state_dict": wrapped}, path)
    elif kind == "features alone":
        features = net.features.state_dict()
        torch.save(features, path)
    elif kind == "timm":
        arrays = {k: v.numpy() for k, v in weights.items()}
        safetensors.numpy.save_file(arrays, path, {"format": "pt"})
    elif kind == "torchxrayvision":
        weights["op_threshs"] = torch.full((18,), 0.1)
        torch.save(weights, path)
    elif kind == "torchxrayvision, whole model":
        as_torchvision("torchxrayvision.models")
        net.register_buffer("op_threshs", torch.full((18,), 0.1))
        torch.save(net, path, **older)
        del net.op_threshs
    elif kind == "reproduce-chexnet":
        as_torchvision("torchvision.models.densenet")
        rng = torch.get_rng_state()
        torch.save({"model": net, "best_loss": 0.1, "rng_state": rng}, path, **older)
    elif kind == "arnoweng":
        wrapped = prefixed(old(weights), "module.densenet121.")
        adam = torch.optim.Adam(net.parameters())
        content = {"epoch": 1, "state_dict": wrapped, "optimizer": adam.state_dict()}
        torch.save(content, path, **older)


# Whole models are saved with their source where torch finds it; here it is elsewhere.
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize(
    ("kind", "classes", "layout"),
    [
        ("torchvision", (), "torchvision"),
        ("torchvision, old keys", (), "torchvision"),
        ("torchvision, training script", (), "torchvision"),
        ("timm", (), "torchvision"),
        ("torchxrayvision", layouts.XRV18, "torchxrayvision"),
        ("torchxrayvision, whole model", layouts.XRV18, "torchxrayvision"),
        ("reproduce-chexnet", labels.NIH14, "reproduce-chexnet"),
        ("arnoweng", labels.NIH14, "arnoweng"),
    ],
)
def test_logits_equal_those_of_torch(
    kind, classes, layout, films, tmp_path, as_torchvision
):
    count, channels = len(classes) or 14, 1 if layout == "torchxrayvision" else 3
    sequential = layout in ("reproduce-chexnet", "arnoweng")
    net = torch_net(count, channels, sequential)
    write(kind, net, tmp_path / "weights", as_torchvision)
    names = model(classes=count, channels=channels)
    imported = load(tmp_path / "weights", names, classes=classes)
    assert imported.report.layout == layout
    assert imported.passport.classes == classes
    assert set(imported.params) | set(imported.rest) == {*names[0], *names[1]}
    # Their scaling, written as they write it.
    if channels == 1:
        expected = logits_of_torch(net, (2 * films - 1) * 1024, (0.0,), (1.0,))
    else:
        expected = logits_of_torch(net, films, MEAN, STD)
    assert_same(logits_of(imported, names, films), expected)


@pytest.mark.long
def test_densenet121_whole(films, tmp_path):
    sizes = {"blocks": (6, 12, 24, 16), "growth": 32, "stem_width": 64}
    net = torch_net(14, 3, **sizes)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    names = model(**sizes)
    imported = load(tmp_path / "weights.pth", names)
    assert imported.passport.architecture == "densenet121"
    assert len(imported.report.ignored) == 121
    expected = logits_of_torch(net, films, MEAN, STD)
    assert_same(logits_of(imported, names, films), expected)


# Keras -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras_net():
    net = keras_densenet.DenseNet(
        [2, 1, 1, 1], weights=None, input_shape=(64, 64, 3), classes=14
    )
    rng = np.random.default_rng(1)
    for layer in net.layers:
        values = []
        for w in layer.weights:
            draw = rng.standard_normal(w.shape).astype(np.float32)
            if w.path.endswith("kernel"):
                draw *= np.sqrt(2 / np.prod(w.shape[:-1]))
            elif w.path.endswith(("gamma", "moving_variance")):
                draw = 1 + 0.3 * np.tanh(draw)
            else:
                draw *= 0.1
            values.append(draw)
        layer.set_weights(values)
    return net


@pytest.fixture(scope="module")
def keras_logits(keras_net, films):
    below = keras.Model(keras_net.input, keras_net.layers[-2].output)
    with jax.numpy_rank_promotion("allow"):
        # Keras' own scaling: mode "torch" of films in [0, 255].
        x = keras.applications.densenet.preprocess_input(np.repeat(films, 3, -1) * 255)
        pooled = np.asarray(jax.jit(lambda x: below(x, training=False))(x))
    kernel, bias = (np.asarray(w.value) for w in keras_net.layers[-1].weights)
    return pooled.astype(np.float64) @ kernel + bias


def keras_two(source, path):
    """The names that Keras 2.1 gave, those of the released ImageNet files."""
    with h5py.File(source) as read, h5py.File(path, "w") as written:
        for layer, group in read["model_weights"].items():
            known = {"conv1_conv": "conv1/conv", "conv1_bn": "conv1/bn"}
            name = known.get(layer, layer).replace("predictions", "fc1000")
            for array, values in group.get(layer, {}).items():
                written[f"{name}/{name}/{array}:0"] = values[()]


@pytest.mark.filterwarnings("ignore")  # of Keras, about its own formats
@pytest.mark.parametrize("file", ["a.h5", "a.keras", "a.weights.h5", "two.h5"])
def test_logits_equal_those_of_keras(file, keras_net, keras_logits, films, tmp_path):
    path = tmp_path / file
    if file == "a.weights.h5":
        keras_net.save_weights(path)
    elif file == "two.h5":
        keras_net.save(tmp_path / "a.h5")
        keras_two(tmp_path / "a.h5", path)
    else:
        keras_net.save(path)
    names = model(blocks=(2, 1, 1, 1))
    imported = load(path, names)
    assert imported.report.layout == "keras"
    assert "variance" in imported.report.changes[0]
    assert_same(logits_of(imported, names, films), keras_logits)
    # A model with Keras' epsilon needs no change.
    same = load(path, names, epsilon=1.001e-5)
    assert same.report.changes == ()


@pytest.mark.long  # Keras takes its time to make a network
def test_keras_makes_its_layers_in_the_order_that_counts_stand_for():
    net = keras.applications.DenseNet169(weights=None, input_shape=(32, 32, 3))
    made = [layer.name for layer in net.layers if layer.weights]
    ours = list(keras_names.layer_names((6, 12, 32, 32)))
    for ending in ("conv", "bn"):
        expected = [name for name in ours if name.endswith(ending)]
        assert [name for name in made if name.endswith(ending)] == expected
    assert made[-1] == "predictions"


# The stem ----------------------------------------------------------------------------


@pytest.fixture
def colour(tmp_path):
    """Weights for three channels, stated to be scaled per channel."""
    path = tmp_path / "colour.pth"
    torch.save(torch_net().state_dict(), path)
    return path


def state_passport(path, **fields):
    passport = Passport(
        **{
            "architecture": "densenet(2, 1)",
            "source": "a test",
            "licence": "Apache-2.0",
            "mean": MEAN,
            "std": STD,
            "channels": 3,
            "size": 64,
            **fields,
        }
    )
    exporting.sidecar(path).write_text(passport.to_json())
    return passport


@pytest.mark.parametrize("scale", [{}, {"mean": (0.5,), "std": (0.25,)}])
def test_three_channels_become_one_exactly_to_the_border(colour, films, scale):
    names = model(gray.GrayDenseNet, channels=1)
    imported = load(colour, names, **scale)
    assert imported.passport.channels == 1
    assert imported.passport.mean == scale.get("mean", (np.mean(MEAN),))
    expected = logits_of_torch(torch_net(), films, MEAN, STD)
    assert_same(logits_of(imported, names, films), expected)
    # Without the border the logits are others: the test could tell.
    flat = "backbone/stem/border"
    imported.params[flat] = np.zeros_like(imported.params[flat])
    with pytest.raises(AssertionError):
        assert_same(logits_of(imported, names, films), expected)


def test_one_mean_for_all_channels_needs_no_border(colour, films):
    state_passport(colour, mean=(0.5,) * 3, std=(0.2, 0.3, 0.4))
    names = model(channels=1)
    imported = load(colour, names, mean=(0.5,), std=(0.25,))
    expected = logits_of_torch(torch_net(), films, (0.5,) * 3, (0.2, 0.3, 0.4))
    assert_same(logits_of(imported, names, films), expected)


def test_what_cannot_be_exact_is_refused(colour):
    with pytest.raises(CheckpointError, match=r"edges.*gray\.densenet121"):
        load(colour, model(channels=1))
    with pytest.raises(CheckpointError, match=r"edges.*task\.mean=\(0\.485"):
        load(colour, model(), mean=(0.5,) * 3, std=STD)
    path = colour.with_name("gray.pth")
    write("torchxrayvision", torch_net(18, 1), path, None)
    with pytest.raises(CheckpointError, match=r"task\.channels=1"):
        load(path, model(classes=18), classes=layouts.XRV18)


def test_a_kept_stem_is_the_files_whatever_films_it_is_given(colour):
    """And says so."""
    own, names = {"mean": (0.5,) * 3, "std": (0.25,) * 3}, model()
    imported = load(colour, names, stem="keep", **own)
    assert (imported.passport.mean, imported.passport.std) == (own["mean"], own["std"])
    (change,) = imported.report.changes
    assert change.startswith("stem kept") and "0.485" in change and "0.25" in change
    plain = load(colour, names)
    for name, array in plain.params.items():
        np.testing.assert_array_equal(imported.params[name], array)
    with pytest.raises(
        CheckpointError, match=r"stem=keep.*3 channels.*task\.channels=3"
    ):
        load(colour, model(channels=1), stem="keep")
    with pytest.raises(ConfigError, match=r"stem='both'.*fit.*keep"):
        load(colour, names, stem="both")


def test_another_std_is_folded_into_the_kernel(colour, films):
    imported = load(colour, model(), mean=MEAN, std=(0.5, 0.25, 0.125))
    assert imported.passport.std == (0.5, 0.25, 0.125)
    expected = logits_of_torch(torch_net(), films, MEAN, STD)
    assert_same(logits_of(imported, model(), films), expected)


def test_films_in_0_to_1_serve_weights_made_for_1024(films, tmp_path):
    net = torch_net(18, 1)
    write("torchxrayvision", net, tmp_path / "xrv.pt", None)
    names = model(classes=18, channels=1)
    scale = {"mean": (0.5,), "std": (0.25,), "classes": layouts.XRV18}
    imported = load(tmp_path / "xrv.pt", names, **scale)
    expected = logits_of_torch(net, (2 * films - 1) * 1024, (0.0,), (1.0,))
    assert imported.passport.std == (0.25,)
    assert_same(logits_of(imported, names, films), expected)


# The head, the passport, the way back --------------------------------------------------


def test_a_fresh_head_leaves_the_head_of_the_model_alone(colour):
    names = model(classes=3)
    imported = load(colour, names, head="fresh", classes=("a", "b", "c"))
    assert not [name for name in imported.params if name.startswith("head/")]
    assert imported.report.fresh == ("head/linear/bias", "head/linear/kernel")
    assert imported.report.dropped == ("classifier.bias", "classifier.weight")
    assert (imported.passport.classes, imported.passport.outputs) == ((), "none")


def test_features_without_a_head_need_a_fresh_one(tmp_path, as_torchvision):
    path = tmp_path / "features.pth"
    write("features alone", torch_net(), path, as_torchvision)
    assert load(path, model(), head="fresh").report.dropped == ()
    with pytest.raises(CheckpointError, match="no head.*fresh"):
        load(path, model())


def test_other_classes_or_another_order_are_refused(tmp_path, as_torchvision):
    path = tmp_path / "model.pth.tar"
    write("arnoweng", torch_net(14, 3, True), path, as_torchvision)
    for classes in (labels.NIH14[::-1], (), labels.NIH14[:13]):
        with pytest.raises(
            CheckpointError, match=r"its classes are Atelectasis.*fresh"
        ):
            load(path, model(), classes=classes)
    spaced = tuple(name.replace("_", " ") for name in labels.NIH14)
    assert load(path, model(), classes=spaced).passport.classes == labels.NIH14


def test_an_export_comes_back_to_the_bit_and_torch_takes_it(colour, films, tmp_path):
    names = model()
    imported = load(colour, names)
    classes = tuple("abcdefghijklmn")
    passport = dataclasses.replace(imported.passport, classes=classes, sha256="")
    path = tmp_path / "export.safetensors"
    written = exporting.export(path, imported.params, imported.rest, passport)
    again = load(path, names, classes=classes)
    assert again.passport == written and len(written.sha256) == 64
    assert again.report.changes == again.report.ignored == ()
    for name, array in {**imported.params, **imported.rest}.items():
        np.testing.assert_array_equal({**again.params, **again.rest}[name], array)
    # Strictly into the source framework, with every number as it was.
    arrays = safetensors.numpy.load_file(path)
    other = DenseNet(14)
    other.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})
    for key, value in torch_net().state_dict().items():
        if "tracked" not in key:
            assert torch.equal(other.state_dict()[key], value), key
    # The passport inside is enough, and one beside it must be of this file.
    exporting.sidecar(path).unlink()
    assert load(path, names, classes=classes).passport == written
    state_passport(path, classes=classes, sha256="0" * 64)
    with pytest.raises(CheckpointError, match="put the right one"):
        load(path, names, classes=classes)
    state_passport(path, classes=classes[::-1])
    with pytest.raises(CheckpointError, match="differs from the passport in the file"):
        load(path, names, classes=classes)


def test_a_gray_export_keeps_its_border(colour, tmp_path):
    names = model(gray.GrayDenseNet, channels=1)
    imported = load(colour, names)
    path = tmp_path / "gray.safetensors"
    exporting.export(path, imported.params, imported.rest, imported.passport)
    again = load(path, names)
    for name, array in imported.params.items():
        np.testing.assert_array_equal(again.params[name], array)
    with pytest.raises(CheckpointError, match="edges"):
        load(path, model(channels=1))


def test_half_precision_is_widened_and_doubles_are_taken(tmp_path):
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        weights = {
            k: v.to(dtype) if v.is_floating_point() else v
            for k, v in torch_net().state_dict().items()
        }
        torch.save(weights, tmp_path / "weights.pth")
        imported = load(tmp_path / "weights.pth", model())
        bias = imported.params["head/linear/bias"]
        assert bias.dtype == np.float32
        np.testing.assert_array_equal(bias, weights["classifier.bias"].float().numpy())


# Misfits -----------------------------------------------------------------------------


def renamed(weights):
    weights["features.norm6.bias"] = weights.pop("features.norm5.bias")


def missing(weights):
    del weights["features.denseblock1.denselayer2.conv1.weight"]


def extra(weights):
    weights["features.denseblock1.denselayer3.conv1.weight"] = torch.zeros(16, 16, 1, 1)


def stranger(weights):
    weights["fc.weight"] = torch.zeros(3)


def misshapen(weights):
    weights["features.conv0.weight"] = torch.zeros(8, 3, 5, 5)


def transposed(weights):
    weights["classifier.weight"] = weights["classifier.weight"].T.contiguous()


def unnatural(weights):
    weights["features.norm0.running_var"] = torch.full((8,), -1.0)


def infinite(weights):
    weights["features.norm0.running_mean"] = torch.full((8,), torch.inf)


def integers(weights):
    weights["classifier.bias"] = torch.zeros(14, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            renamed,
            r"1 arrays of the file .*norm6\.bias.*1 arrays of the model .*norm/bias",
        ),
        (missing, r"1 arrays of the model .*blocks/0/layers/1/conv1/kernel"),
        (extra, r"1 arrays of the file .*denselayer3\.conv1\.weight.*\(3, 1\)"),
        (stranger, r"1 arrays of the file .*fc\.weight"),
        (misshapen, r"stem/kernel \(5, 5, 3, 8\) for \(7, 7, 3, 8\)"),
        (transposed, r"linear/kernel \(14, 12\) for \(12, 14\)"),
        (unnatural, r"stem_norm/var.*negative variance"),
        (infinite, r"stem_norm/mean.*infinity"),
        (integers, r"linear/bias: holds int64"),
    ],
)
def test_a_misfit_is_told_with_both_sides(change, told, tmp_path):
    weights = dict(torch_net().state_dict())
    change(weights)
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=told) as caught:
        load(tmp_path / "weights.pth", model())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_another_depth_is_named_before_hundreds_of_arrays(colour):
    names = model(blocks=(6, 12, 24, 16), growth=32, stem_width=64)
    with pytest.raises(CheckpointError, match="the model is densenet121") as caught:
        load(colour, names)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"from": "weights.pth"}, "from and head"),
        ({"from": "weights.pth", "head": "keep", "strict": ""}, "from and head"),
        ({"from": "weights.pth", "head": "new"}, "keep .* or fresh"),
        ({"from": 3, "head": "keep"}, "text"),
    ],
)
def test_a_spec_says_what_it_means(spec, told):
    with pytest.raises(ConfigError, match=told):
        pretrained.load(spec, *model()[:2])


def test_the_layout_that_is_named_must_be_that_of_the_file(colour):
    with pytest.raises(ConfigError, match="choose one of torchvision, timm"):
        load(colour, model(), layout="onnx")
    with pytest.raises(CheckpointError, match="are those of timm or torchvision"):
        load(colour, model(), layout="arnoweng")
    assert load(colour, model(), layout="timm").report.layout == "timm"


def test_a_gray_stem_without_a_known_scaling_is_refused(tmp_path):
    path = tmp_path / "gray.pth"
    torch.save(torch_net(14, 1).state_dict(), path)
    names = model(channels=1)
    with pytest.raises(CheckpointError, match=r"gray\.pth\.passport\.json"):
        load(path, names)
    # The library is known after all, or the passport is written.
    by_name = load(path, names, layout="torchxrayvision")
    assert by_name.passport.mean == (0.5,)
    state_passport(path, channels=1, mean=(0.4,), std=(0.3,))
    assert load(path, names).passport.std == (0.3,)


# TorchXRayVision: 18 outputs, not all of them trained -----------------------------------


def xrv(path, threshs):
    weights = torch_net(18, 1).state_dict()
    if threshs is not None:
        weights["op_threshs"] = torch.as_tensor(threshs)
    torch.save(weights, path)
    return path


@pytest.mark.parametrize("name", ["nih", "pc", "chex", "rsna"])
def test_outputs_that_were_not_trained_have_no_name(name, tmp_path):
    """The library's thresholds of these files, NaN where it was not trained."""
    untrained = {
        "nih": (14, 15, 16, 17),
        "pc": (14, 16, 17),
        "chex": (2, 5, 6, 9, 11, 12, 13),
        "rsna": (*range(8), *range(9, 16), 17),
    }[name]
    threshs = [float("nan") if n in untrained else 0.1 for n in range(18)]
    path, names = xrv(tmp_path / "xrv.pt", threshs), model(classes=18, channels=1)
    with pytest.raises(CheckpointError, match="untrained output"):
        load(path, names, classes=layouts.XRV18)
    classes = hub.HUB[f"torchxrayvision/densenet121-res224-{name}"].classes
    passport = load(path, names, classes=classes).passport
    assert passport.classes == classes and passport.licence == "Apache-2.0"
    assert [n for n, c in enumerate(classes) if "untrained" in c] == [*untrained]


@pytest.mark.parametrize("threshs", [None, [float("nan")] * 18, [0.1] * 17, [1] * 18])
def test_where_nothing_tells_what_was_trained_somebody_must(threshs, tmp_path):
    path, names = xrv(tmp_path / "xrv.pt", threshs), model(classes=18, channels=1)
    told = r"2 of them.*fresh, or name the file's classes in xrv\.pt\.passport\.json"
    with pytest.raises(CheckpointError, match=told):
        load(path, names, classes=layouts.XRV18)
    with pytest.raises(ConfigError, match=r"names.*xrv\.pt\.passport\.json"):
        loading.load(path)
    assert load(path, names, head="fresh", classes=layouts.XRV18).passport.mean == (
        0.5,
    )
    given = {
        "classes": layouts.XRV18,
        "channels": 1,
        "mean": (0.5,),
        "std": (1 / 2048,),
    }
    state_passport(path, **given)
    assert load(path, names, classes=layouts.XRV18).passport.classes == layouts.XRV18


def test_the_released_file_of_all_datasets_is_known_by_its_digest(tmp_path):
    archive = archives.read(xrv(tmp_path / "xrv.pt", None))
    source = torch_names.read(archive.arrays)
    for digest, classes in ((layouts.XRV_ALL, layouts.XRV18), (archive.sha256, ())):
        passport = layouts.assumed("torchxrayvision", source, "xrv.pt", digest)
        assert passport.classes == classes
        assert ("trained 2 of them" in passport.notes) == (classes == ())
    entry = hub.HUB["torchxrayvision/densenet121-res224-all"]
    assert entry.checksum == f"sha256:{layouts.XRV_ALL}"


def test_nested_json_beside_a_file_or_in_it_is_refused_in_one_line(colour, tmp_path):
    deep = "[" * 200_000
    exporting.sidecar(colour).write_text(deep)
    for text in (deep, '{"run": ' + "[" * 900 + "]" * 900 + "}", f'{{"run": {deep}'):
        exporting.sidecar(colour).write_text(text)
        with pytest.raises(CheckpointError) as caught:
            load(colour, model())
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    for key, read in (("passport", exporting.stated), ("run", exporting.made_by)):
        path = tmp_path / "deep.safetensors"
        arrays = {"x": np.ones(2, np.float32)}
        safetensors.numpy.save_file(arrays, path, {key: deep})
        with pytest.raises(CheckpointError, match="not JSON") as caught:
            read(path, archives.read(path))
        assert "\n" not in str(caught.value)


# Names of the hub ----------------------------------------------------------------------


def test_every_name_of_the_hub_has_a_passport():
    for name, entry in hub.HUB.items():
        passport = entry.passport(name, "")
        assert Passport.from_json(passport.to_json()) == passport
        assert len(passport.classes) == (18 if "xray" in name else 0)
        assert entry.url.startswith("https://")
        assert entry.layout in layouts.LAYOUTS


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(CheckpointError, match=r"timm/densenet121\.tv_in1k"):
        load("timm/densenet999", model())


def test_no_network_is_one_line_that_says_what_to_do(monkeypatch, tmp_path):
    def down(*_, **__):
        raise hub.requests.exceptions.ConnectionError("a\nlong\nstory")

    monkeypatch.setattr(hub.pooch, "retrieve", down)
    with pytest.raises(CheckpointError, match=r"could not be fetched.*path") as caught:
        load("torchvision/densenet121", model(), cache=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_fetched_file_is_checked_and_thrown_away_if_it_is_another(
    monkeypatch, tmp_path
):
    def retrieve(url, *, known_hash, fname, path):
        torch.save(torch_net(1000).state_dict(), path / fname)
        return str(path / fname)

    monkeypatch.setattr(hub.pooch, "retrieve", retrieve)
    name = "torchvision/densenet121"
    with pytest.raises(CheckpointError, match="its publisher says a639ec97"):
        load(name, model(classes=1000), cache=tmp_path)
    assert not list(tmp_path.iterdir())
    entry = dataclasses.replace(hub.HUB[name], checksum="")
    monkeypatch.setitem(hub.HUB, name, entry)
    imported = load(name, model(classes=1000), cache=tmp_path)
    assert imported.passport.licence == "BSD-3-Clause"
    assert imported.passport.outputs == "softmax"


def test_a_pinned_digest_is_held(colour):
    digest = load(colour, model()).passport.sha256
    assert load(colour, model(), sha256=digest.upper()).passport.sha256 == digest
    with pytest.raises(CheckpointError, match="expected is 00"):
        load(colour, model(), sha256="0" * 64)


# EfficientNets of Keras ----------------------------------------------------------------

STAGES = ((1, 3, 1, 1, 8), (2, 5, 2, 4, 16))
SIZES = {"stages": STAGES, "width": 1.0, "depth": 1.0}


def efficient(classes=14, **kwargs):
    return model(efficientnet.EfficientNet, classes, **SIZES, **kwargs)


@pytest.fixture(scope="module")
def efficient_net(of_keras):
    net = of_keras.efficientnet(
        *(1.0, 1.0, 64),
        blocks_args=of_keras.stages(STAGES),
        input_shape=(64, 64, 3),
        classes=14,
        classifier_activation=None,
    )
    of_keras.randomise(net, seed=4)
    return net


@pytest.fixture(scope="module")
def efficient_logits(of_keras, efficient_net, films):
    pixels = np.repeat(films, 3, -1) * np.float32(255)
    return of_keras.outputs(efficient_net, ["predictions"], pixels)[0]


def rewritten(net, path, *, change=lambda arrays: None, head=True):
    """A file as the released ones are: names of TF, and std where variance stands."""
    arrays = {}
    for layer in net.layers:
        kind = "depthwise_kernel" if layer.name.endswith("dwconv") else ""
        for w in layer.weights:
            leaf = kind or w.path.rpartition("/")[2]
            name = (
                "normalization" if "normal" in layer.name.split("_")[0] else layer.name
            )
            arrays[f"{name}/{name}/{leaf}:0"] = np.asarray(w.value)
    scale = "normalization/normalization/"
    arrays[f"{scale}variance:0"] = np.array(STD, np.float32)
    if not head:
        arrays = {k: v for k, v in arrays.items() if "predictions" not in k}
    change(arrays)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.mark.filterwarnings("ignore")  # of Keras, about its own formats
@pytest.mark.parametrize("file", ["a.h5", "a.keras", "a.weights.h5", "released.h5"])
def test_logits_equal_those_of_keras_efficientnet(
    file, efficient_net, efficient_logits, films, tmp_path
):
    path = tmp_path / file
    if file == "released.h5":
        rewritten(efficient_net, path)
    elif file == "a.weights.h5":
        efficient_net.save_weights(path)
    else:
        efficient_net.save(path)
    names = efficient()
    imported = load(path, names, epsilon=1e-3)
    assert imported.report.layout == "keras-efficientnet"
    assert imported.report.changes == ()
    assert [name.rpartition("/")[2] for name in imported.report.ignored] == ["count"]
    assert (imported.passport.mean, imported.passport.std) == (MEAN, STD)
    assert "assumed" not in imported.passport.notes
    assert_same(logits_of(imported, names, films), efficient_logits)
    # Another epsilon, another std: the same function of the film.
    names = efficient(epsilon=2e-3)
    other = load(path, names, epsilon=2e-3, mean=MEAN, std=(0.5, 0.25, 0.125))
    assert len(other.report.changes) == 2
    assert_same(logits_of(other, names, films), efficient_logits)


def test_a_network_that_ends_early_takes_what_lies_before(
    efficient_net, of_keras, films, tmp_path
):
    path = rewritten(efficient_net, tmp_path / "notop.h5", head=False)
    whole = {**efficient()[0], **efficient()[1]}
    params, rest, _ = efficient(until="block2a_expand")
    given = {n: a for n, a in {**params, **rest}.items() if n.startswith("backbone/")}
    behind = {
        name: array
        for name, array in whole.items()
        if name.startswith("backbone/") and name not in given
    }
    spec = {"from": str(path), "head": "fresh"}
    imported = pretrained.load(spec, given, {}, behind=behind, epsilon=1e-3)
    assert {*imported.params} == {*given}
    assert len(imported.report.dropped) == len(behind)
    assert "top_conv/kernel" in imported.report.dropped
    network = efficientnet.EfficientNet(
        **SIZES, until="block2a_expand", rngs=nnx.Rngs(0)
    )
    tree = nnx.state(network)
    filled = jax.tree_util.tree_map_with_path(
        lambda p, _: imported.params[f"backbone/{state.name_of(p)}"], tree
    )
    nnx.update(network, filled)
    pixels = np.repeat(films, 3, -1) * np.float32(255)
    (expected,) = of_keras.outputs(efficient_net, ["block2a_expand_activation"], pixels)
    found = network((np.repeat(films, 3, -1) - MEAN) / STD)
    assert_same(found, expected)
    # All of what lies behind, or nothing of it; without a word, it is left over.
    with pytest.raises(
        CheckpointError, match=r"model are not in the file .*top/kernel"
    ):
        short = rewritten(
            efficient_net,
            tmp_path / "short.h5",
            change=lambda a: a.pop("top_conv/top_conv/kernel:0"),
            head=False,
        )
        pretrained.load(
            spec | {"from": str(short)}, given, {}, behind=behind, epsilon=1e-3
        )
    with pytest.raises(CheckpointError, match="have no place in the model"):
        pretrained.load(spec, given, {}, epsilon=1e-3)
    cut = rewritten(
        efficient_net,
        tmp_path / "cut.h5",
        change=lambda a: [
            a.pop(key)
            for key in [*a]
            if key.startswith(("block2b", "top", "block2a"))
            and not key.startswith("block2a_expand")
        ],
        head=False,
    )
    again = pretrained.load(
        spec | {"from": str(cut)}, given, {}, behind=behind, epsilon=1e-3
    )
    assert again.report.dropped == ()


def scaled(mean, variance, **others):
    def change(arrays):
        at = "normalization/normalization/"
        arrays[f"{at}mean:0"] = np.array(mean, np.float32)
        arrays[f"{at}variance:0"] = np.array(variance, np.float32)
        for name, array in others.items():
            arrays[f"{at}{name}:0"] = np.array(array)

    return change


def test_the_layer_that_scales_films_decides_the_passport(efficient_net, tmp_path):
    def read(change, **kwargs):
        path = rewritten(efficient_net, tmp_path / "a.h5", change=change)
        return load(path, efficient(), epsilon=1e-3, **kwargs).passport

    # As of a network without Keras' weights: nothing is taken off.
    plain = read(scaled((0, 0, 0), (1, 1, 1)))
    assert (plain.mean, plain.std) == ((0.0,) * 3, (1.0,) * 3)
    own = read(scaled((0.5, 0.4, 0.3), (0.04, 0.09, 0.01)))
    assert (own.mean, own.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
    squares = read(scaled(MEAN, np.square(STD)))
    assert (squares.mean, squares.std) == (MEAN, STD)
    with pytest.raises(CheckpointError, match=r"less mean=\(0\.0, 0\.0, 0\.0\)"):
        read(scaled((0, 0, 0), (1, 1, 1)), mean=MEAN, std=STD)
    for wrong in ((0.0, 1, 1), (np.nan, 1, 1), (np.inf, 1, 1)):
        with pytest.raises(CheckpointError, match="no positive variance"):
            read(scaled(MEAN, wrong))
    with pytest.raises(CheckpointError, match="one number per channel"):
        read(scaled(MEAN, (1.0, 1.0)))
    with pytest.raises(CheckpointError, match="no place in the model .*normalization"):
        read(scaled(MEAN, STD, bias=1.0))
    state_passport(tmp_path / "a.h5", mean=(0.4,) * 3)
    with pytest.raises(CheckpointError, match=r"says mean=\(0\.4.*layer \(0\.485"):
        read(scaled(MEAN, STD))


@pytest.mark.filterwarnings("ignore")  # of Keras, about its own formats
def test_another_kind_of_network_is_named(efficient_net, keras_net, tmp_path):
    path = rewritten(efficient_net, tmp_path / "a.h5")
    with pytest.raises(CheckpointError, match=r"a\.h5: .*EfficientNet.*is a DenseNet"):
        load(path, model())
    dense = tmp_path / "dense.weights.h5"
    keras_net.save_weights(dense)
    with pytest.raises(CheckpointError, match="DenseNet, the model is an EfficientNet"):
        load(dense, efficient(), epsilon=1e-3)
    deeper = model(efficientnet.EfficientNet, 14, stages=STAGES, width=1.0, depth=2.0)
    with pytest.raises(
        CheckpointError, match="EfficientNet of 3 blocks, the model is an .* of 6"
    ):
        load(path, deeper, epsilon=1e-3)
    with pytest.raises(CheckpointError, match="are those of keras-efficientnet"):
        load(path, efficient(), layout="keras", epsilon=1e-3)


@pytest.mark.parametrize("until", ["", "block6a_expand"])
def test_sizes_are_told_by_their_widths(until):
    for name in layouts.EFFICIENTNETS:
        build = functools.partial(getattr(efficientnet, name), until=until)
        assert layouts.architecture(params_of(build)) == name
    assert layouts.architecture({"backbone/convs/0/kernel": np.zeros(3)}) == (
        "no DenseNet or EfficientNet"
    )


def params_of(build):
    def create(key):
        network = build(rngs=nnx.Rngs(params=key))
        head = heads.PoolThenClassify(network.num_features(), 2, rngs=nnx.Rngs(0))
        return heads.Classifier(network, head)

    return state.flatten(state.ModelDef.of(create).params)


def test_digests_of_the_hub_are_those_of_keras():
    from keras.src.applications.efficientnet import BASE_WEIGHTS_PATH, WEIGHTS_HASHES

    for size in ("b0", "b1", "b2", "b3"):
        entry = hub.HUB[f"keras/efficientnet_{size}-notop"]
        assert entry.checksum == f"md5:{WEIGHTS_HASHES[size][1]}"
        assert entry.url == f"{BASE_WEIGHTS_PATH}efficientnet{size}_notop.h5"
        assert entry.passport("a", "").outputs == "none"
