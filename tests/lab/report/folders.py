"""Folders of studies that were not trained, and pages read as HTML."""

import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import yaml
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from bisam_lab.run.logs import logged
from bisam_lab.run.result import Epoch, RunResult
from bisam_lab.tuning.result import read_trials, write_best, write_trials
from tests.lab.tuning.small import small

EVIL = "</script><script>window.evil = 1</script>"

HARDWARE = {"torch": "2.9.1", "python": "3.12.1", "cpu": "Some CPU", "gpus": ["H100"], "git_commit": "c0ffee123"}

SCORES = {"sgd": (0.80, 0.81, 0.82), "sam": (0.84, 0.85, 0.87), "<b>odd": (0.79, 0.82, 0.10)}


def result(method, seed, score, variant=""):
    status = "collapsed" if score < 0.2 else "ok"
    history = [Epoch(epoch, 2.0 / epoch, score - 0.1 / epoch, loss_at="w") for epoch in range(1, 7)]
    return RunResult(
        method=method,
        seed=seed,
        status=status,
        test_score=score,
        validation_score=history[-1].validation_score,
        selected_epoch=6,
        steps_per_second=50.0,
        seconds=12.5,
        variant=variant,
        parameters=78042,
        environment={**HARDWARE, "started": f"2026-01-0{seed + 1}T10:00:00+00:00"},
        history=history,
    )


def study(folder, *, name="study", variants=(), skip=(), scores=SCORES, **fields):
    """Write a study's folder as its processes do, without training."""
    recipe = {"name": name, "methods": list(scores), "seeds": 3, "model": {"name": "resnet-8"}, **fields}
    recipe["train"] = {"epochs": 6, "lr": 0.3}
    if variants:
        recipe["variants"] = {variant: {"model.name": variant} for variant in variants}
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    for variant in variants or ("",):
        for method, each in scores.items():
            for seed, score in enumerate(each):
                if (method, seed) not in skip:
                    path = folder / "runs" / variant / method / f"seed-{seed}" / "result.json"
                    path.parent.mkdir(parents=True)
                    path.write_text(json.dumps(result(method, seed, score, variant).to_dict()))
    return folder


def run_folder(folder, *, method="sam", rho=0.4, eps=0.4, at="w", recorded=True, finished=True):
    """Write the folder of a run as bisam train does, without training."""
    told = {"seconds": 2.0, "passes": 2.0, "steps": 10, "rho": rho, "eps_norm": eps, "gradient_norm": 0.7}
    history = [
        Epoch(e, 1.0 / e, 0.65 + 0.05 * e, 0.1 / e, loss_at=at, train_score=0.65 + 0.1 * e, **told)
        if recorded
        else Epoch(e, 1.0 / e, 0.65 + 0.05 * e, 0.1 / e, seconds=2.0, loss_at=at)
        for e in (1, 2, 3)
    ]
    (folder / "csv").mkdir(parents=True)
    recipe = {"name": "digits", "methods": [method], "seeds": 1, "first_seed": 3, "train": {"epochs": 3}}
    (folder / "run.yaml").write_text(yaml.safe_dump(recipe))
    rows = [logged(epoch) for epoch in history[:2]]
    names = ["step", *rows[0]]
    lines = [names, *([str(i + 1), *map(str, row.values())] for i, row in enumerate(rows))]
    (folder / "csv" / "metrics.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    if finished:
        done = replace(result(method, 3, 0.84), history=history, validation_score=0.8, selected_epoch=3)
        (folder / "result.json").write_text(json.dumps(done.to_dict()))
    return folder


def tuning_folder(folder, *, trials, wanted=None):
    """Write the folder of a tuning of SAM's radius and the learning rate, without training.

    The fifth trial and the tenth are pruned, and the seventh is far below the others.
    """
    tuning = small(folder, space=["train.lr=0.01:1:log"], trials=wanted or trials)
    study_ = tuning.create()
    study_.sampler = RandomSampler(seed=1)
    for i in range(trials):
        trial = study_.ask()
        for dimension in tuning.space:
            dimension.suggest(trial)
        score = 0.1 if i == 6 else 0.95 - 0.05 * abs(math.log(trial.params["rho"] / 0.05))
        trial.report(score, 1)
        pruned = i % 5 == 4
        study_.tell(trial.number, None if pruned else score, TrialState.PRUNED if pruned else TrialState.COMPLETE)
    found = read_trials(tuning, study_)
    write_trials(tuning, study_)
    write_best(tuning, found, "bisam tune digits")
    return folder


class Page(HTMLParser):
    """Cells of its tables by class, its tags, its text outside scripts."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.tags, self.text, self.inside = {}, [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.rows = self.tables.setdefault(dict(attrs)["class"].split()[0], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("td", "th", "script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside):
            self.text += data
            if self.inside:
                self.rows[-1][-1] = (self.rows[-1][-1] + " " + " ".join(data.split())).strip()
