"""From config to gradient transformations: one optax chain per phase, and the plateau.

The plateau schedule is not part of the chain: it is updated once per validation on the
host's word, and its scale enters the jitted step as an array.
"""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cxr_jax import config
from cxr_jax.errors import ConfigError
from cxr_jax.models.state import Arrays, flatten, name_of

Schedule = Callable[[Any], Any]


def adam(
    schedule: Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    l2: float = 0.0,
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba, 2014), its L2 term added to the gradient as PyTorch's ``Adam`` does.

    Args:
        schedule: step → learning rate.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment.
        l2: coefficient of the L2 penalty, all parameters.
    """
    return optax.chain(
        optax.add_decayed_weights(l2) if l2 else optax.identity(),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.scale_by_learning_rate(schedule),
    )


def adamw(
    schedule: Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decay: tuple[str, ...] = ("*",),
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019).

    Args:
        schedule: step → learning rate.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: coefficient, multiplied by the learning rate.
        decay: name patterns of the parameters that decay, such as ``("*/kernel",)``.
    """

    def mask(params: Arrays) -> dict[str, bool]:
        return {name: matches(name, decay) for name in params}

    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(schedule),
    )


def sgd(
    schedule: Schedule,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    l2: float = 0.0,
) -> optax.GradientTransformation:
    """Gradient descent with momentum; L2 added to the gradient as PyTorch's ``SGD`` does.

    Args:
        schedule: step → learning rate.
        momentum: decay of the trace, in [0, 1).
        nesterov: whether the trace looks one step ahead.
        l2: coefficient of the L2 penalty, all parameters.
    """
    return optax.chain(
        optax.add_decayed_weights(l2) if l2 else optax.identity(),
        optax.trace(momentum, nesterov) if momentum else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    )


def constant(learning_rate: float, steps: int) -> Schedule:
    """The same rate at every step."""
    del steps
    return optax.constant_schedule(learning_rate)


def warmup_cosine(learning_rate: float, steps: int, *, warmup: float = 0.0) -> Schedule:
    """Linear from 0 over the first share ``warmup`` of all steps, then a cosine to 0."""
    rise = round(warmup * steps)
    return optax.warmup_cosine_decay_schedule(
        0.0 if rise else learning_rate, learning_rate, rise, max(steps, rise + 1)
    )


def cosine_under_warmup(
    learning_rate: float, steps: int, *, warmup_steps: int
) -> Schedule:
    """A cosine to 0 over all steps, of which the first ones rise linearly instead.

    ``η t / w`` for t < w, then ``η (1 + cos(π t / T)) / 2``: the cosine does not wait for
    the warm-up, so that the rate jumps down a little at its end, as in ADPD's code.

    Args:
        learning_rate: η.
        steps: T.
        warmup_steps: w; 0 for none.
    """
    rise = optax.linear_schedule(0.0, learning_rate, max(warmup_steps, 1))
    fall = optax.cosine_decay_schedule(learning_rate, steps)

    def schedule(step: Any) -> Any:
        return jnp.where(step < warmup_steps, rise(step), fall(step))

    return schedule


def chain(
    phase: Mapping[str, Any], *, steps: int, since: Mapping[str, int]
) -> optax.GradientTransformation:
    """The transformation of one phase of a config.

    Parameters are grouped by the phase in which they began to train, and each group has
    a state of its own: a group that is carried over a switch of phases keeps its moments
    and its count, while newly thawed parameters start at count 0.

    Args:
        phase: ``optimizer`` and ``schedule`` (parts: ``name`` and arguments),
            ``learning_rate``, ``clip_norm`` (0 for none; over all groups together).
        steps: number of steps of the phase.
        since: name of every trainable parameter → phase in which it began to train.
    """
    schedule = config.build(
        phase["schedule"], learning_rate=phase["learning_rate"], steps=steps
    )
    groups = {
        str(group): config.build(phase["optimizer"], schedule=schedule)
        for group in sorted(set(since.values()))
    }
    labels = {name: str(group) for name, group in since.items()}
    clip = phase["clip_norm"]
    return optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        optax.partition(groups, labels),
    )


def carry(new: Any, old: Any) -> Any:
    """The fresh state of a phase, with every group that the phase before had taken over.

    Moments and their counts go on; the schedule's count is of the new phase and is 0.

    Args:
        new: state of the new phase's ``chain``, just initialised.
        old: state of the old phase's ``chain``.
    """
    clip, parts = new
    inner = {**parts.inner_states}
    for group, state in old[1].inner_states.items():
        if group in inner:
            inner[group] = _take_over(inner[group], flatten(state))
    return clip, parts._replace(inner_states=inner)


def _take_over(new: Any, old: Arrays) -> Any:
    # By name, not by structure: the new state has place-holders for thawed parameters.
    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    nodes, treedef = jax.tree_util.tree_flatten_with_path(new, is_leaf=is_schedule)
    return treedef.unflatten(
        [node if is_schedule(node) else old[name_of(path)] for path, node in nodes]
    )


def plateau(spec: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
    """Divides the rate when the validated metric stops falling.

    Args:
        spec: ``factor`` in (0, 1), ``patience`` (validations without improvement before
            the rate falls; 0 for never), ``rtol``, ``min_scale``.
    """
    arguments = config.plain(spec)
    arguments["patience"] = arguments["patience"] or 2**31 - 1
    return optax.contrib.reduce_on_plateau(**arguments)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a parameter's name matches one of the shell-style patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def partition(params: Arrays, phase: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
    """Trainable and frozen parameters of a phase.

    Args:
        params: all of the network.
        phase: ``freeze``: name patterns; ``thaw``: patterns of those that train all the
            same.

    Raises:
        ConfigError: a pattern of ``freeze`` that names no parameter, one of ``thaw`` that
            names no frozen one, or no parameter left to train.
    """
    freeze, thaw = phase["freeze"], phase["thaw"]
    _check_patterns("freeze", freeze, params)
    frozen = {k: v for k, v in params.items() if matches(k, freeze)}
    _check_patterns("thaw", thaw, frozen)
    frozen = {k: v for k, v in frozen.items() if not matches(k, thaw)}
    trainable = {k: v for k, v in params.items() if k not in frozen}
    if not trainable:
        raise ConfigError(f"freeze={freeze!r} leaves no parameter to train")
    return trainable, frozen


def _check_patterns(key: str, patterns: tuple[str, ...], params: Arrays) -> None:
    for pattern in patterns:
        if not any(matches(name, (pattern,)) for name in params):
            what = "frozen parameter" if key == "thaw" else "parameter"
            names = ", ".join(sorted(params)[:3]) or "nothing"
            raise ConfigError(
                f"{key}={pattern!r} matches no {what}; names look like {names}"
            )
