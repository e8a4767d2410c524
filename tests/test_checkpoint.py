"""A checkpoint is restored bit for bit, or refused."""

import gc
import hashlib
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax import checkpoint
from cxr_jax.checkpoint import Checkpoints, digests, sha256
from cxr_jax.errors import CheckpointError

# Orbax drops its coroutines when a file is damaged; that is what these tests provoke.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def collect_here():
    """What a damaged restore leaves behind is collected in its own test."""
    yield
    gc.collect()


def state(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "params": {
            "w": jnp.asarray(rng.normal(size=(64, 32)).astype(np.float32)),
            "b": jnp.asarray(rng.normal(size=32), jnp.bfloat16),
        },
        "step": jnp.int32(seed),
        "flag": jnp.asarray([True, False]),
        "key": jax.random.key_data(jax.random.key(seed)),
    }


def like(_meta):
    return jax.eval_shape(lambda: state())


def test_what_is_saved_comes_back_with_its_meta(tmp_path):
    folder = Checkpoints(tmp_path / "latest", keep=2)
    for step in (3, 5, 9):
        folder.save(step, state(step), {"position": step * 10})
    folder.close()
    assert Checkpoints(tmp_path / "latest", keep=2).steps() == [5, 9]
    found = Checkpoints(tmp_path / "latest", keep=2).restore(like)
    assert (found.step, found.meta["position"]) == (9, 90)
    assert sha256(found.state) == sha256(state(9)) == found.meta["sha256"]


def test_an_empty_folder_restores_nothing(tmp_path):
    assert Checkpoints(tmp_path / "latest", keep=2).restore(like) is None


def test_saving_a_step_again_keeps_equal_values_and_replaces_others(tmp_path):
    folder = Checkpoints(tmp_path / "latest", keep=2)
    folder.save(1, state(1), {"n": 1})
    folder.save(1, state(1), {"n": 2})
    assert folder.restore(like).meta["n"] == 1
    folder.save(1, state(2), {"n": 3})
    folder.wait()
    assert folder.restore(like).meta["n"] == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_the_digest_sees_every_flipped_bit_and_every_swap(dtype):
    rng = np.random.default_rng(0)
    values = jnp.asarray(
        rng.integers(0, 2, 40) if dtype == "bool" else rng.integers(0, 200, 40)
    ).astype(dtype)
    before = digests({"x": values})["x"]
    raw = np.asarray(values).copy()
    seen = set()
    for place in range(40):
        for bit in range(1 if dtype == "bool" else 8 * raw.dtype.itemsize):
            changed = raw.copy()
            word = changed.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[raw.itemsize])
            word[place] ^= np.array(1 << bit, word.dtype)
            seen.add(digests({"x": jnp.asarray(changed)})["x"])
    assert before not in seen
    i, j = 0, int(np.flatnonzero(raw != raw[0])[0])
    swapped = raw.copy()
    swapped[[i, j]] = swapped[[j, i]]
    assert digests({"x": jnp.asarray(swapped)})["x"] != before


def test_the_digest_equals_an_independent_sum():
    x = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    words = [int(w) for w in x.view(np.uint32).reshape(-1)]
    expected = sum(w * (2 * p + 1) * 2654435761 for p, w in enumerate(words)) % 2**32
    assert digests({"x": jnp.asarray(x)})["x"] == expected


def test_the_digest_does_not_depend_on_the_layout():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jnp.arange(64, dtype=jnp.float32)
    assert digests({"x": jax.device_put(x, spread)}) == digests({"x": x})


def test_sha256_is_of_names_types_shapes_and_bytes():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256(b"a/b <f4 (2, 3) " + x.tobytes()).hexdigest()
    assert sha256({"a": {"b": jnp.asarray(x)}}) == expected


def payload(folder, step):
    """Files of a committed step that hold values, largest first."""
    files = [p for p in (folder / str(step)).rglob("*") if p.is_file()]
    return sorted(files, key=lambda p: -p.stat().st_size)


def two_steps(tmp_path):
    folder = Checkpoints(tmp_path / "latest", keep=2)
    folder.save(1, state(1), {})
    folder.save(2, state(2), {})
    folder.close()
    return tmp_path / "latest"


def test_no_flipped_bit_is_ever_restored_silently(tmp_path, caplog):
    """Single-bit flips anywhere in the newest step, its metadata included."""
    rng = random.Random(0)
    refused = 0
    for trial in range(24):
        folder = two_steps(tmp_path / str(trial))
        files = payload(folder, 2)
        path = rng.choices(files, weights=[p.stat().st_size for p in files])[0]
        raw = bytearray(path.read_bytes())
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)
        found = Checkpoints(folder, keep=2).restore(like)
        # Either the flip hit nothing that matters, or the step before was taken.
        assert sha256(found.state) == sha256(state(found.step))
        refused += found.step == 1
    assert refused > 5
    assert caplog.text.count("refused") == refused


@pytest.mark.parametrize("how", ["truncate", "delete", "no_digests"])
def test_a_damaged_step_is_refused_aloud_and_moved_aside(tmp_path, caplog, how):
    folder = two_steps(tmp_path)
    if how == "truncate":
        victim = payload(folder, 2)[0]
        victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    elif how == "delete":
        payload(folder, 2)[0].unlink()
    else:
        (folder / "2" / "meta" / "metadata").write_text('{"phase": 0}')
    again = Checkpoints(folder, keep=2)
    assert again.restore(like).step == 1
    assert "latest/2 refused" in caplog.text
    assert (tmp_path / "damaged" / "latest-2").is_dir()
    # The number is free again: the run repeats the step.
    again.save(2, state(2), {})
    again.wait()
    assert again.restore(like).step == 2


def test_when_nothing_is_sound_the_run_does_not_start_over_in_silence(tmp_path):
    folder = two_steps(tmp_path)
    for step in (1, 2):
        payload(folder, step)[0].unlink()
    for _ in range(2):  # the second try says the same, and has not lost anything
        with pytest.raises(CheckpointError, match="none of the checkpoints"):
            Checkpoints(folder, keep=2).restore(like)
        assert Checkpoints(folder, keep=2).steps() == [1, 2]


def test_a_write_that_fails_is_an_error_and_keeps_what_was_there(tmp_path, monkeypatch):
    folder = Checkpoints(tmp_path / "latest", keep=2)
    folder.save(1, state(1), {})
    folder.wait()

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder._manager, "wait_until_finished", full)
    with pytest.raises(CheckpointError, match=r"No space left.*steps on disk: \[1\]"):
        folder.wait()
    assert checkpoint.Checkpoints(tmp_path / "latest", keep=2).restore(like).step == 1


def test_a_folder_that_is_only_read_stays_as_it_is(tmp_path, flip_bit):
    folder = Checkpoints(tmp_path / "best", keep=2)
    for step in (1, 2):
        folder.save(step, state(step), {})
    folder.close()
    files = [p for p in (tmp_path / "best" / "2").rglob("*") if p.is_file()]
    flip_bit(max(files, key=lambda p: p.stat().st_size))
    (tmp_path / "best" / "3.orbax-checkpoint-tmp").mkdir()
    before = sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    reader = Checkpoints(tmp_path / "best", keep=2, read_only=True)
    assert reader.restore(like).step == 1
    with pytest.raises(RuntimeError, match="read only"):
        reader.save(4, state(4), {})
    reader.close()
    after = sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    assert after == before
