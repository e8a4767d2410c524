"""A page is about the part that was asked for."""

import json

import pytest

from cxr_jax.pages.evidence import read_evidence


@pytest.mark.parametrize(
    ("splits", "wanted"),
    [
        (["test"], "test val train official-test"),
        (["train", "test"], "test train val official-test"),
        (["official/test"], "official-test test val train"),
        (["val"], "val test train official-test"),
        (["val", "test"], "test val train official-test"),
        ([], "test val train official-test"),
    ],
)
@pytest.mark.parametrize("tested", [True, False])
def test_what_the_config_names_comes_first_and_of_it_the_test_part(
    tmp_path, splits, wanted, tested
):
    config = {"eval": {"splits": splits}} if splits else {}
    (tmp_path / "config.json").write_text(json.dumps(config))
    parts = wanted.split()[0 if tested else 1 :]
    for part in parts:
        folder = tmp_path / "evaluation" / part
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"split": part}))
    found = read_evidence(tmp_path)
    assert list(found.results) == parts
    assert found.main["split"] == parts[0]
