"""A stored evaluation stands while everything that it was made from is the same."""

import jax
import pytest

from cxr_jax import config as configs
from cxr_jax import results
from cxr_jax import run as runs
from cxr_jax.errors import DataError
from cxr_jax.preemption import Stopper

TEST = [f"{k:03d}.png" for k in range(100) if k // 2 % 5 == 4]


@pytest.fixture
def opened(toy, tmp_path):
    """From overrides to a run that was trained once, its evaluation compiled before."""
    config, data_dir = toy
    few = ["phases.0.epochs=1.0", "eval.resamples=0", "eval.samples=0"]

    def opened(*overrides):
        return runs.open_run(
            configs.load(config, [*few, *overrides]),
            path=str(tmp_path / "run"),
            data_dir=data_dir,
            stopper=Stopper(),
        )

    run = opened()
    opened.prepared = results.prepare(run)
    runs.train(run)
    return opened


@pytest.fixture
def evaluate(opened):
    """From overrides to the results of that run."""
    return lambda *overrides: results.evaluate_run(opened(*overrides))


def write_calls(path, call):
    lines = [f"{name},{who},{call}" for name in TEST for who in ("ann", "bob", "cid")]
    path.write_text("\n".join(["id,reader,bright", *lines[:-1], lines[-1][:-1] + "1"]))


def test_a_reader_file_is_brought_to_a_trained_run(
    opened, evaluate, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:  # All is compiled before training.
        patch.delattr(jax.stages.Lowered, "compile")
        results.evaluate_run(opened(), opened.prepared)
    files = [
        tmp_path / f"run/evaluation/test/{name}"
        for name in ("predictions.csv", "result.json")
    ]
    stored = [file.read_text() for file in files]
    files[1].unlink()
    before = evaluate()["test"]
    assert [file.read_text() for file in files] == stored
    assert before["inputs"] == {} and "no reader file" in before["readers"]["reason"]
    path = tmp_path / "mine.csv"
    write_calls(path, 0)
    asked = [f"eval.evaluators.3.file={path}", "eval.evaluators.3.least=2"]
    first = evaluate(*asked)["test"]
    assert first["readers"]["films"] == len(TEST)
    assert first["weights_sha256"] == before["weights_sha256"]
    assert first["inputs"] == {"eval.evaluators.3.file": first["readers"]["sha256"]}
    # The same again stands; other calls under the same name do not.
    file = tmp_path / "run/evaluation/test/result.json"
    written = file.stat().st_mtime_ns
    assert evaluate(*asked)["test"]["readers"] == first["readers"]
    assert file.stat().st_mtime_ns == written
    write_calls(path, 1)
    second = evaluate(*asked)["test"]
    assert second["readers"]["sha256"] != first["readers"]["sha256"]
    assert second["readers"]["fleiss"] != first["readers"]["fleiss"]
    path.unlink()
    with pytest.raises(DataError, match=r"mine\.csv: cannot be read"):
        evaluate(*asked)


def test_validation_has_intervals_only_where_it_is_named(evaluate, tmp_path, capsys):
    """What is frozen on it does not depend on that; a gallery of before goes."""
    val, test = (tmp_path / f"run/evaluation/{p}/samples.npz" for p in ("val", "test"))
    asked = ["eval.resamples=50", "eval.samples=3"]
    named = evaluate("eval.splits=('val','test')", *asked)
    assert val.exists() and test.exists()
    assert "again" not in capsys.readouterr().err
    alone = evaluate(*asked)
    told = capsys.readouterr().err
    assert "val: evaluated again, other than before: settings, named" in told
    assert "test: evaluated again, other than before: settings\n" in told
    assert test.exists() and not val.exists()
    figures, ends = ("value", "classes", "left_out"), ("low", "high", "resamples")
    for part in ("val", "test"):
        got, want = (r[part]["metrics"]["auroc"]["mean"] for r in (alone, named))
        assert [got[k] for k in figures] == [want[k] for k in figures]
        assert None not in [want[k] for k in ends]
        assert ([got[k] for k in ends] == [want[k] for k in ends]) == (part == "test")
        assert alone[part]["frozen"] == named[part]["frozen"] != {}
    assert alone["val"]["metrics"]["auroc"]["mean"]["low"] is None
    val, test = results.headline(alone).splitlines()[:2]
    assert val.startswith("val: mean auroc 0.") and val.endswith("films; no interval")
    assert " [0." in test and test.endswith("patient-level interval")
