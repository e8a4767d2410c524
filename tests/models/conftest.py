"""Networks of Keras with random weights, and their arrays under our names."""

import functools

import jax
import keras
import numpy as np
import pytest
from flax import nnx
from keras.src.applications import densenet as keras_densenet
from keras.src.applications import efficientnet as keras_efficientnet

NORM = ("scale", "bias", "mean", "var")


class OfKeras:
    """What the tests of several networks ask of Keras."""

    efficientnet = staticmethod(
        functools.partial(keras_efficientnet.EfficientNet, weights=None)
    )
    densenet = staticmethod(functools.partial(keras_densenet.DenseNet, weights=None))

    @staticmethod
    def stages(stages):
        """Rows of ``efficientnet.STAGES`` as Keras has them, for a stem of 32."""
        keys = ("repeats", "kernel_size", "strides", "expand_ratio", "filters_out")
        given = (32, *(row[-1] for row in stages))
        return [
            dict(zip(keys, row, strict=True), filters_in=before)
            | {"id_skip": True, "se_ratio": 0.25}
            for row, before in zip(stages, given, strict=False)
        ]

    @staticmethod
    def randomise(model, seed):
        """Weights that keep activations of order one, moving statistics included."""
        rng = np.random.default_rng(seed)
        for layer in model.layers:
            values = []
            for w in layer.weights:
                draw = rng.standard_normal(w.shape).astype(np.float32)
                if w.path.endswith("kernel"):
                    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                    fan_in = np.prod(w.shape[: 2 if depthwise else -1])
                    draw *= np.sqrt(2 / fan_in)
                elif w.path.endswith(("gamma", "moving_variance")):
                    draw = 1 + 0.2 * np.tanh(draw)
                else:
                    draw *= 0.1
                values.append(draw)
            scales = isinstance(layer, keras.layers.Normalization)
            layer.set_weights([MEAN, STD**2, np.array(0)] if scales else values)
            if scales:
                layer.finalize_state()  # it computes with a copy

    @staticmethod
    def outputs(model, layers, films):
        """What layers of a model give, in evaluation."""
        outputs = [model.get_layer(name).output for name in layers]
        part = keras.Model(model.inputs, outputs)
        values = [
            [v.value for v in variables]
            for variables in (part.trainable_variables, part.non_trainable_variables)
        ]
        with jax.numpy_rank_promotion("allow"):  # Keras' Dense adds its bias as it is
            found, _ = jax.jit(part.stateless_call)(*values, films)
        return [np.asarray(x) for x in jax.tree.leaves(found)]

    @staticmethod
    def weights(model, names):
        """``{our name: array}`` of the layers that are named, in their own shapes.

        Args:
            names: layer of Keras → our module.
        """
        found = {}
        for theirs, ours in names.items():
            # Not `get_weights()`, whose `numpy()` NumPy 2 warns about.
            values = [np.asarray(w.value) for w in model.get_layer(theirs).weights]
            leaves = NORM if len(values) == 4 else ("kernel", "bias")
            for leaf, value in zip(leaves, values, strict=False):
                found[f"{ours}/{leaf}"] = value
        return found

    @staticmethod
    def names_of_efficientnet(model, ours="backbone"):
        """Layer → our module, of an EfficientNet, whatever stands around it."""
        blocks, names = [], {}
        parts = {
            "expand_conv": "expand",
            "expand_bn": "expand_norm",
            "dwconv": "depthwise",
            "bn": "norm",
            "se_reduce": "squeeze",
            "se_expand": "excite",
            "project_conv": "project",
            "project_bn": "project_norm",
        }
        fixed = {"stem_conv": "stem", "stem_bn": "stem_norm"}
        fixed |= {"top_conv": "top", "top_bn": "top_norm"}
        for layer in model.layers:
            block, _, part = layer.name.partition("_")
            if layer.name in fixed:
                names[layer.name] = f"{ours}/{fixed[layer.name]}"
            elif part in parts and layer.weights and block[-1].isalpha():
                if block not in blocks:
                    blocks.append(block)
                place = f"{ours}/blocks/{blocks.index(block)}"
                names[layer.name] = f"{place}/{parts[part]}"
        return names

    @staticmethod
    def names_of_densenet(model, ours="backbone"):
        """Layer → our module, of a DenseNet, whatever stands around it."""
        names = {}
        parts = {"0_bn": "norm1", "1_conv": "conv1", "1_bn": "norm2", "2_conv": "conv2"}
        fixed = {"conv1_conv": "stem", "conv1_bn": "stem_norm", "bn": "norm"}
        for layer in model.layers:
            block, _, rest = layer.name.partition("_")
            if layer.name in fixed:
                names[layer.name] = f"{ours}/{fixed[layer.name]}"
            elif layer.weights and block.startswith("pool"):
                place = f"{ours}/transitions/{int(block[4:]) - 2}"
                names[layer.name] = f"{place}/{'norm' if rest == 'bn' else 'conv'}"
            elif layer.weights and rest.startswith("block"):
                number, _, part = rest.partition("_")
                place = f"{ours}/blocks/{int(block[4:]) - 2}"
                place += f"/layers/{int(number[5:]) - 1}"
                names[layer.name] = f"{place}/{parts[part]}"
        return names

    @staticmethod
    def filled(create, arrays):
        """Our model and its state, with all arrays replaced, each exactly once."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        graphdef, state = nnx.split(nnx.eval_shape(create, key))
        left = dict(arrays)

        def value(path, like):
            path = jax.tree_util.keystr(path, simple=True, separator="/")
            array = left.pop(path.removesuffix("/value"))
            assert array.size == like.size
            return array.reshape(like.shape)  # 1 × 1 kernels, depthwise ones

        state = jax.tree_util.tree_map_with_path(value, state)
        assert not left, sorted(left)
        return graphdef, state


MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


@pytest.fixture(scope="session")
def of_keras():
    """Networks of Keras with random weights, and their arrays under our names."""
    return OfKeras
