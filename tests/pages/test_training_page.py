"""Losses by epoch: averaged by hand, with the phases and the evaluated epoch marked."""

import base64
import re

import pytest

from cxr_jax.pages import training
from cxr_jax.pages.evidence import Evidence


def line(step, split, loss, phase=0, **more):
    return {
        "step": step,
        "epoch": step / 10,
        "split": split,
        "phase": phase,
        "loss": loss,
        **more,
    }


LINES = (
    line(5, "train", 4.0),
    line(9, "train", 2.0),
    line(10, "train", 7.0),  # cut short by the validation: one step
    line(10, "val", 3.0, auroc=0.6),
    line(20, "train", 1.0),
    line(20, "val", 2.5, auroc=0.8),
    line(30, "train", 0.5, phase=1),
    line(30, "val", None, phase=1),  # undefined on that day
)


def evidence(lines=LINES, *, name="a", step=20, terms="bce", dataset="chest/1"):
    result = {"checkpoint_step": step, "dataset": dataset, "split": "test"}
    return Evidence(
        config={"task": {"terms": [terms]}},
        passport={},
        lines=lines,
        results={"test": result},
        curves={},
        samples=None,
        name=name,
    )


def drawings(section):
    uris = re.findall(r"base64,([A-Za-z0-9+/=]+)", section)
    texts = (base64.b64decode(uri).decode() for uri in uris)
    return [re.findall(r"<!-- (.*?) -->", text, re.DOTALL) for text in texts]


def test_the_training_loss_of_an_epoch_counts_every_step_once():
    history = training.History.of(evidence())
    first = (5 * 4.0 + 4 * 2.0 + 1 * 7.0) / 10
    assert history.training_loss() == [(1, pytest.approx(first)), (2, 1), (3, 0.5)]
    assert history.validation("loss") == [(1, 3.0), (2, 2.5)]
    assert history.validation("auroc") == [(1, 0.6), (2, 0.8)]
    assert history.best == 2 and history.switches == [2]


def test_old_lines_name_no_phase():
    old = [{k: v for k, v in line.items() if k != "phase"} for line in LINES]
    history = training.History.of(evidence(old))
    assert history.switches == [] and history.best == 2
    (own,) = drawings(training.section(evidence(old)))
    assert not any("phase" in word for word in own)


def test_phases_and_the_evaluated_epoch_are_marked():
    (own,) = drawings(training.section(evidence()))
    assert "phase 2 begins" in own and "evaluated" in own and "mean AUROC" in own


def test_several_runs_have_a_panel_each():
    section = training.section(evidence(), evidence(name="b"), evidence(name="c"))
    _, panels = drawings(section)
    for name in "abc":
        assert panels.count(name) == 1
    assert panels.count("training") == panels.count("validation") == 3
    assert "not to be compared" not in section


def test_other_losses_are_said_to_differ():
    section = training.section(evidence(), evidence(name="b", terms="focal"))
    assert "heights are not to be compared" in section


def test_computed_films_share_no_figure_with_real_ones():
    phantom = [evidence(name=n, dataset="phantom_chest/tiny") for n in "xy"]
    figures = drawings(training.section(evidence(), *phantom))
    assert len(figures) == 2 and "a" not in figures[1]
    assert {"x", "y"} <= set(figures[1])
    assert len(drawings(training.section(evidence(), phantom[0]))) == 1


def test_a_scored_file_and_a_run_without_lines():
    scored = evidence()
    scored.results["test"]["scored"] = {"file": "p.csv"}
    assert training.section(scored) == ""
    assert "No training log was found." in training.section(evidence(()))
