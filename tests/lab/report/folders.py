"""Folders of studies that were not trained, and pages read as HTML."""

import json
from html.parser import HTMLParser

import yaml

from bisam_lab.run.result import Epoch, RunResult

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


def study(folder, *, name="study", variants=(), skip=(), **fields):
    """Write a study's folder as its processes do, without training."""
    recipe = {"name": name, "methods": list(SCORES), "seeds": 3, "model": {"name": "resnet-8"}, **fields}
    recipe["train"] = {"epochs": 6, "lr": 0.3}
    if variants:
        recipe["variants"] = {variant: {"model.name": variant} for variant in variants}
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    for variant in variants or ("",):
        for method, scores in SCORES.items():
            for seed, score in enumerate(scores):
                if (method, seed) not in skip:
                    path = folder / "runs" / variant / method / f"seed-{seed}" / "result.json"
                    path.parent.mkdir(parents=True)
                    path.write_text(json.dumps(result(method, seed, score, variant).to_dict()))
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
