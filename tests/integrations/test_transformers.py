"""The Hugging Face Trainer against the plain loop, to the bit; its features around the passes; what it must refuse."""

import copy
import functools
import gc
import itertools
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bisam
from bisam import ASAM, SAM, BinaryLowerBoundLoss, BiSAM, CausalLMLoss, LowerBoundLoss
from bisam.cadence import Every
from bisam.testing import bits
from tests.pages import run_page

transformers = pytest.importorskip("transformers")
from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402

from bisam.integrations.transformers import SharpnessAwareTrainer, SharpnessAwareTrainerMixin  # noqa: E402
from tests.makers import MAKERS  # noqa: E402

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.matrix("Trainer")
FAMILY = pytest.mark.parametrize(
    "method", [pytest.param(make, id=name) for name, make in MAKERS.items() if name != "functionalsam"]
)
METHODS = pytest.mark.parametrize("method", [SAM, ASAM, BiSAM])
B, K, V = 4, 3, 20


@pytest.fixture(scope="module", autouse=True)
def _collect_quickly():
    """Each training begins with a full garbage collection, over every object that transformers has imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Rows(torch.utils.data.Dataset):
    """Sentences of random words; the label hangs on the first word, so that there is something to learn."""

    def __init__(self, n=24, labels=lambda ids: int(ids[0]) % K, length=5):
        ids = torch.randint(1, V, (n, length), generator=torch.Generator().manual_seed(1))
        self.rows = [{"input_ids": row, "labels": labels(row)} for row in ids]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def batches(rows, size=B):
    return [
        {key: torch.stack([torch.as_tensor(row[key]) for row in rows[i : i + size]]) for key in rows[0]}
        for i in range(0, len(rows), size)
    ]


def classifier(dropout=0.0, **choices):
    config = transformers.BertConfig(
        vocab_size=V,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        num_labels=choices.pop("num_labels", K),
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.5,  # far from flat, so that a perturbation shows
        **choices,
    )
    torch.manual_seed(3)
    return transformers.BertForSequenceClassification(config)


def language_model():
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=8, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    config.bos_token_id = config.eos_token_id = 0
    torch.manual_seed(3)
    return transformers.GPT2LMHeadModel(config)


def arguments(path, **choices):
    plain = {
        "output_dir": str(path),
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "per_device_train_batch_size": B,
        "num_train_epochs": 1,
        "max_grad_norm": 0.0,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
    }
    return TrainingArguments(**(plain | choices))


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def own_loss(model, batch, items):
    """What the Trainer descends for models that take the number of items: the sum over them, divided by it."""
    return model(**batch, num_items_in_batch=items).loss


def plain_loop(model, opt, micro_batches, accumulate=1, clip=0.0, loss_of=own_loss, ascent_of=None, after=None):
    """The guide's loop: the reference that nothing of the Trainer has touched."""
    model.train()
    values = []
    for i in range(0, len(micro_batches), accumulate):
        parts = micro_batches[i : i + accumulate]
        items = sum(part["labels"].ne(-100).sum() for part in parts)
        total = 0.0
        for part in parts:
            for loss in opt.passes():
                if loss.is_ascent and opt.estimator.ascent is not opt.estimator.descent:
                    logits = model(input_ids=part["input_ids"]).logits
                    value = (ascent_of or loss)(logits, part["labels"])
                    (loss.record(value) / len(parts)).backward()
                else:
                    value = loss.record(loss_of(model, part, items))
                    value.backward()
            total += value.item()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        opt.step()
        opt.zero_grad()
        if after is not None:
            after()
        values.append(total)
    return values


class Losses(TrainerCallback):
    def __init__(self):
        self.values = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.values.append(logs["loss"])


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def fit(trainer):
    trainer.train()
    return trainer


# -- the plain loop, to the bit ------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize(
    ("base", "accumulate", "clip"), [(sgd, 1, 0.5), (adamw, 1, 0.0), (sgd, 2, 0.0), (adamw, 4, 0.5)]
)  # 6 batches, so 4 + 2 of them in the last case
def test_the_trainer_is_the_plain_loop(tmp_path, method, base, accumulate, clip):
    rows, model, losses = Rows(), classifier(), Losses()
    reference = copy.deepcopy(model)
    opt = method(base(model), model=model, rho=0.2)
    args = arguments(
        tmp_path,
        gradient_accumulation_steps=accumulate,
        max_grad_norm=clip,
        logging_strategy="steps",
        logging_steps=1,
    )
    done = fit(SharpnessAwareTrainer(model, args, train_dataset=rows, optimizers=(opt, None), callbacks=[losses]))
    ref = method(base(reference), model=reference, rho=0.2)
    values = plain_loop(reference, ref, batches(rows), accumulate, clip)
    assert same(model, reference)
    assert opt.param_groups[0]["sharpness_steps"] == len(values) == done.state.global_step
    assert losses.values == pytest.approx(values, rel=1e-6), "the loss that is logged is the last pass's"
    assert opt.last.perturbed
    assert opt.last.ascent_value == ref.last.ascent_value
    away = copy.deepcopy(reference)
    plain_loop(away, method(base(away), rho=0.0), batches(rows), accumulate, clip)
    assert not same(away, reference), "the perturbation does nothing here, so this test could not fail"


@METHODS
def test_the_factory_wraps_what_the_arguments_build(tmp_path, method):
    """AdamW in two groups, with decay and without, and a linear schedule."""
    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)
    args = arguments(tmp_path, weight_decay=0.1, optim="adamw_torch", lr_scheduler_type="linear", learning_rate=0.02)
    make = functools.partial(method, rho=0.2)
    done = fit(SharpnessAwareTrainer(model, args, train_dataset=rows, sharpness=make))
    ours = done.sharpness_aware
    assert type(ours) is method
    assert type(ours.base) is torch.optim.AdamW
    assert [group["weight_decay"] for group in ours.param_groups] == [0.1, 0.0]
    opt = make(Trainer(reference, args).create_optimizer(), model=reference)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: max(0.0, (6 - step) / 6))
    plain_loop(reference, opt, batches(rows), after=schedule.step)
    assert same(model, reference)


def test_a_plain_optimizer_given_is_wrapped_too(tmp_path):
    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)
    make = functools.partial(SAM, rho=0.2)
    fit(
        SharpnessAwareTrainer(
            model, arguments(tmp_path), train_dataset=rows, optimizers=(sgd(model), None), sharpness=make
        )
    )
    plain_loop(reference, make(sgd(reference)), batches(rows))
    assert same(model, reference)


def test_the_factory_as_a_method(tmp_path):
    class Mine(SharpnessAwareTrainer):
        def make_sharpness_aware(self, base, model):
            return SAM(base, model=model, rho=0.3)

    done = fit(Mine(classifier(), arguments(tmp_path, max_steps=1), train_dataset=Rows()))
    assert done.sharpness_aware.param_groups[0]["rho"] == 0.3


def test_a_radius_of_zero_is_the_plain_trainer(tmp_path):
    rows, model = Rows(), classifier(dropout=0.1)
    other = copy.deepcopy(model)
    args = arguments(
        tmp_path, gradient_accumulation_steps=2, train_sampling_strategy="random", label_smoothing_factor=0.1
    )
    fit(SharpnessAwareTrainer(model, args, train_dataset=rows, sharpness=functools.partial(BiSAM, rho=0.0)))
    fit(Trainer(other, args, train_dataset=rows))
    assert same(model, other)


def test_the_cadence_counts_the_steps_and_not_the_micro_batches(tmp_path):
    rows, model, climbs = Rows(), classifier(), []

    class Watched(SharpnessAwareTrainer):
        def training_step(self, *args, **kwargs):
            value = super().training_step(*args, **kwargs)
            climbs.append(self.sharpness_aware.last.perturbed)
            return value

    make = functools.partial(BiSAM, rho=0.2, cadence=Every(2))
    fit(Watched(model, arguments(tmp_path, gradient_accumulation_steps=2), train_dataset=rows, sharpness=make))
    assert climbs == [True, True, False, False, True, True]


def test_a_descent_that_the_trainer_would_not_call_is_refused(tmp_path):
    """Functional SAM ties its two objectives together, and the Trainer descends its own loss."""
    model = classifier()
    opt = bisam.FunctionalSAM(sgd(model), model=model)
    with pytest.raises(ValueError, match=r"(?s)descent=OutputGradient.*would never be called"):
        SharpnessAwareTrainer(model, arguments(tmp_path), optimizers=(opt, None))


@FAMILY
def test_every_method_is_that_of_the_plain_loop(tmp_path, method):
    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)
    args = arguments(tmp_path, gradient_accumulation_steps=2, max_grad_norm=0.5)
    make = functools.partial(method, rho=0.2)
    fit(SharpnessAwareTrainer(model, args, train_dataset=rows, optimizers=(make(sgd(model), model=model), None)))
    plain_loop(reference, make(sgd(reference), model=reference), batches(rows), 2, 0.5)
    assert same(model, reference)


def test_a_third_pass_is_of_the_trainers_loss_too(tmp_path):
    """A weighted loss, so that the optimizer's own cross-entropy in the first pass would show."""
    from bisam.combine import Blend

    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)
    make = functools.partial(BiSAM, rho=0.2, combine=Blend(0.5), third_pass=True)
    opt = make(sgd(model), model=model)
    fit(Weighted(model, arguments(tmp_path), train_dataset=rows, optimizers=(opt, None)))
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    ref = BiSAM(sgd(reference), model=reference, rho=0.2, combine=Blend(0.5), third_pass=True, descent=weighted)
    for batch in batches(rows):
        for loss in ref.passes():
            loss(reference(input_ids=batch["input_ids"]).logits, batch["labels"]).backward()
        assert loss.index == 2
        ref.step()
        ref.zero_grad()
    assert same(model, reference)


@METHODS
def test_dropout_draws_as_in_the_plain_loop(tmp_path, method):
    rows, model = Rows(), classifier(dropout=0.3)
    reference = copy.deepcopy(model)

    class Seeds(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            torch.manual_seed(11)

    opt = method(sgd(model), model=model, rho=0.2)
    args = arguments(tmp_path, max_steps=1)
    fit(SharpnessAwareTrainer(model, args, train_dataset=rows, optimizers=(opt, None), callbacks=[Seeds()]))
    torch.manual_seed(11)
    plain_loop(reference, method(sgd(reference), model=reference, rho=0.2), batches(rows)[:1])
    assert same(model, reference)


# -- losses --------------------------------------------------------------------------------------------------------


class Weighted(SharpnessAwareTrainer):
    """A user's compute_loss as they are written: takes the labels out, and reports a mean."""

    loss_is_scaled_for_ga = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2.0, 3.0]))
        return (loss, outputs) if return_outputs else loss


@METHODS
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_trainer_that_overrides_compute_loss(tmp_path, method, accumulate):
    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)
    args = arguments(tmp_path, gradient_accumulation_steps=accumulate)
    opt = method(sgd(model), model=model, rho=0.2)
    fit(Weighted(model, args, train_dataset=rows, optimizers=(opt, None)))

    def weighted(model, batch, items):
        logits = model(input_ids=batch["input_ids"]).logits
        return nn.functional.cross_entropy(logits, batch["labels"], weight=torch.tensor([1.0, 2.0, 3.0])) / accumulate

    plain_loop(reference, method(sgd(reference), model=reference, rho=0.2), batches(rows), accumulate, loss_of=weighted)
    assert same(model, reference)


@METHODS
def test_label_smoothing(tmp_path, method):
    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)
    opt = method(sgd(model), model=model, rho=0.2)
    args = arguments(tmp_path, label_smoothing_factor=0.1)
    fit(SharpnessAwareTrainer(model, args, train_dataset=rows, optimizers=(opt, None)))
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)

    def smoothed(model, batch, items):
        return smooth(model(input_ids=batch["input_ids"]).logits, batch["labels"])

    plain_loop(reference, method(sgd(reference), model=reference, rho=0.2), batches(rows), loss_of=smoothed)
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # the Trainer computes it in another order


@METHODS
def test_compute_loss_func(tmp_path, method):
    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)
    opt = method(sgd(model), model=model, rho=0.2)

    def squares(outputs, labels, num_items_in_batch=None):
        return (outputs.logits.softmax(-1) - nn.functional.one_hot(labels, K)).square().sum() / num_items_in_batch

    args = arguments(tmp_path, gradient_accumulation_steps=2)
    fit(SharpnessAwareTrainer(model, args, train_dataset=rows, optimizers=(opt, None), compute_loss_func=squares))

    def loss_of(model, batch, items):
        return squares(model(input_ids=batch["input_ids"]), batch["labels"], items)

    plain_loop(reference, method(sgd(reference), model=reference, rho=0.2), batches(rows), 2, loss_of=loss_of)
    assert same(model, reference)


def some_ignored(ids):
    labels = ids.clone()
    labels[int(ids[0]) % 5] = -100
    return labels


@pytest.mark.parametrize("ascent", [None, CausalLMLoss(LowerBoundLoss())], ids=["shifted here", "shifts itself"])
@pytest.mark.parametrize("subclass", [False, True])
def test_causal_models_climb_the_next_token(tmp_path, ascent, subclass):
    rows, model = Rows(labels=some_ignored), language_model()
    reference = copy.deepcopy(model)
    if subclass:
        model.__class__ = type("Mine", (transformers.GPT2LMHeadModel,), {})
    opt = BiSAM(sgd(model), model=model, rho=0.5, ascent=ascent)
    args = arguments(tmp_path, gradient_accumulation_steps=2)
    fit(SharpnessAwareTrainer(model, args, train_dataset=rows, optimizers=(opt, None)))
    next_token = CausalLMLoss(LowerBoundLoss())
    plain_loop(reference, BiSAM(sgd(reference), rho=0.5), batches(rows), 2, ascent_of=next_token)
    assert same(model, reference)


def test_labels_that_a_collator_has_shifted_are_not_shifted_again(tmp_path):
    rows = Rows(labels=some_ignored)
    for row in rows.rows:
        row["shift_labels"] = nn.functional.pad(row["labels"], (0, 1), value=-100)[1:]
    model = language_model()
    reference = copy.deepcopy(model)
    opt = BiSAM(sgd(model), model=model, rho=0.5)
    args = arguments(tmp_path, remove_unused_columns=False)
    fit(SharpnessAwareTrainer(model, args, train_dataset=rows, optimizers=(opt, None)))
    ref = BiSAM(sgd(reference), rho=0.5)

    def loss_of(model, batch, items):
        return model(**batch, num_items_in_batch=batch["shift_labels"].ne(-100).sum()).loss

    plain_loop(reference, ref, batches(rows), loss_of=loss_of, ascent_of=CausalLMLoss(LowerBoundLoss()))
    assert same(model, reference)


def test_a_label_for_each_token(tmp_path):
    rows = Rows(labels=lambda ids: torch.where(ids % 4 == 0, -100, ids % K))
    torch.manual_seed(3)
    model = transformers.BertForTokenClassification(classifier().config)
    reference = copy.deepcopy(model)
    opt = BiSAM(sgd(model), model=model, rho=0.5)
    fit(SharpnessAwareTrainer(model, arguments(tmp_path), train_dataset=rows, optimizers=(opt, None)))
    plain_loop(
        reference,
        BiSAM(sgd(reference), rho=0.5),
        batches(rows),
        ascent_of=lambda logits, labels: LowerBoundLoss()(logits.reshape(-1, K), labels.reshape(-1)),
    )
    assert same(model, reference)


def test_other_names_by_an_override(tmp_path):
    """Extractive questions have two logits and two labels a sample."""
    rows = Rows()
    for row in rows.rows:
        row["start_positions"], row["end_positions"] = 1, 3
        del row["labels"]
    torch.manual_seed(3)
    model = transformers.BertForQuestionAnswering(classifier(num_labels=2).config)
    make = functools.partial(BiSAM, rho=0.2)
    with pytest.raises(TypeError, match="no logits"):
        fit(SharpnessAwareTrainer(model, arguments(tmp_path), train_dataset=rows, sharpness=make))

    class Spans(SharpnessAwareTrainer):
        def logits_and_labels(self, outputs, inputs):
            logits = torch.cat([outputs.start_logits, outputs.end_logits])
            return logits, torch.cat([inputs["start_positions"], inputs["end_positions"]])

    done = fit(Spans(model, arguments(tmp_path), train_dataset=rows, sharpness=make))
    assert done.sharpness_aware.last.perturbed


# -- precision -----------------------------------------------------------------------------------------------------


def under_autocast(model, dtype):
    """Let the model compute in ``dtype`` and return float32 logits, as accelerate does."""
    forward = model.forward

    def autocast(*args, **kwargs):
        with torch.autocast("cpu", dtype):
            output = forward(*args, **kwargs)
        output.logits = output.logits.float()
        return output

    model.forward = autocast


@METHODS
def test_bf16(tmp_path, method):
    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)
    opt = method(sgd(model), model=model, rho=0.2)
    fit(SharpnessAwareTrainer(model, arguments(tmp_path, bf16=True), train_dataset=rows, optimizers=(opt, None)))
    under_autocast(reference, torch.bfloat16)
    plain_loop(reference, method(sgd(reference), model=reference, rho=0.2), batches(rows))
    assert same(model, reference)


class Scaled(SharpnessAwareTrainer):
    """What accelerate does for fp16, on a CPU, where it refuses to; the scaler is torch's own."""

    overflow = False

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        self.accelerator.native_amp = True
        self.accelerator.state._mixed_precision = "fp16"

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        return loss * torch.inf if self.overflow else loss


@METHODS
def test_fp16_scaling(tmp_path, method, monkeypatch):
    monkeypatch.setattr("accelerate.accelerator.get_mixed_precision_context_manager", lambda *_: half())
    rows, model = Rows(), classifier()
    opt = method(sgd(model), model=model, rho=0.2)
    args = arguments(tmp_path, gradient_accumulation_steps=2, max_grad_norm=0.5)
    done = fit(Scaled(model, args, train_dataset=rows, optimizers=(opt, None)))
    assert done.accelerator.scaler.get_scale() == 2.0**8
    assert opt.param_groups[0]["sharpness_steps"] == 3
    assert opt.last.norm == pytest.approx(0.2 if method is not ASAM else opt.last.norm, rel=1e-3)
    reference = classifier()
    under_autocast(reference, torch.float16)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    ref = method(sgd(reference), model=reference, rho=0.2)
    pairs = batches(rows)
    for i in range(0, 6, 2):
        items = sum(part["labels"].numel() for part in pairs[i : i + 2])
        for part in pairs[i : i + 2]:
            for loss in ref.passes():
                if loss.is_ascent and method is BiSAM:
                    value = loss(reference(input_ids=part["input_ids"]).logits, part["labels"]) / 2
                else:
                    value = loss.record(own_loss(reference, part, items))
                scaler.scale(value).backward()
        scaler.unscale_(ref)
        nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        scaler.step(ref)
        scaler.update()
        ref.zero_grad()
    assert same(model, reference)


@METHODS
def test_fp16_overflow_skips_the_step(tmp_path, method, monkeypatch):
    monkeypatch.setattr("accelerate.accelerator.get_mixed_precision_context_manager", lambda *_: half())
    model = classifier()
    before = bits(model)
    opt = method(sgd(model), model=model, rho=0.2)
    trainer = Scaled(model, arguments(tmp_path, max_steps=2), train_dataset=Rows(), optimizers=(opt, None))
    trainer.overflow = method is not BiSAM
    if method is BiSAM:
        trainer.compute_loss_func = lambda outputs, labels, num_items_in_batch: outputs.logits.sum() * torch.inf
    fit(trainer)
    assert bits(model) == before
    assert trainer.accelerator.scaler.get_scale() == 2.0**6
    assert opt.param_groups[0]["sharpness_steps"] == 0


def half():
    return torch.autocast("cpu", torch.float16)


# -- around the loop -----------------------------------------------------------------------------------------------


@METHODS
def test_resume_from_a_checkpoint_is_exact(tmp_path, method):
    """In mid-epoch, shuffled, with dropout, and in mid-cycle of a cadence."""
    rows = Rows()

    def trainer(**choices):
        model = classifier(dropout=0.1)
        make = functools.partial(method, rho=0.2, cadence=Every(2))
        args = arguments(
            tmp_path,
            num_train_epochs=2,
            save_strategy="steps",
            save_steps=3,
            train_sampling_strategy="random",
            lr_scheduler_type="linear",
            optim="adamw_torch",
            **choices,
        )
        return SharpnessAwareTrainer(model, args, train_dataset=rows, sharpness=make)

    whole = fit(trainer())
    assert whole.state.global_step == 12
    saved = torch.load(tmp_path / "checkpoint-9" / "optimizer.pt", weights_only=True)
    assert saved["param_groups"][0]["sharpness_steps"] == 9
    assert saved["param_groups"][0]["rho"] == 0.2
    again = trainer()
    torch.randn(7)  # what happened before is forgotten
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))
    assert same(whole.model, again.model)
    assert again.sharpness_aware.param_groups[0]["sharpness_steps"] == 12
    one, two = whole.sharpness_aware.state_dict()["state"], again.sharpness_aware.state_dict()["state"]
    assert all(torch.equal(one[i][key], two[i][key]) for i in one for key in one[i])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks transformers for it
@METHODS
def test_adapters_alone_are_perturbed(tmp_path, method):
    peft = pytest.importorskip("peft")
    rows, inner = Rows(), classifier()
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS", init_lora_weights=False)
    model = peft.get_peft_model(inner, config)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    reference = copy.deepcopy(model)
    make = functools.partial(method, rho=0.2)
    args = arguments(tmp_path, optim="sgd", learning_rate=0.5)
    seen = []

    class Watched(SharpnessAwareTrainer):
        def compute_loss(self, model, inputs, **kwargs):
            seen.append(all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen))
            return super().compute_loss(model, inputs, **kwargs)

    done = fit(Watched(model, args, train_dataset=rows, sharpness=make))
    assert seen == [True] * 12
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for g in done.sharpness_aware.param_groups for p in g["params"]) == sum(
        map(torch.numel, trained)
    )
    ref = make(Trainer(reference, args).create_optimizer(), model=reference)
    plain_loop(reference, ref, batches(rows))
    assert same(model, reference)
    assert not all(torch.equal(p, frozen.get(n, p + 1)) for n, p in reference.named_parameters())


def test_training_twice_and_evaluating_between(tmp_path):
    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)
    opt = BiSAM(sgd(model), model=model, rho=0.2)
    trainer = SharpnessAwareTrainer(
        model, arguments(tmp_path), train_dataset=rows, eval_dataset=rows, optimizers=(opt, None)
    )
    fit(trainer)
    before = bits(model)
    found = trainer.evaluate()
    assert found["eval_loss"] > 0
    assert bits(model) == before
    fit(trainer)
    ref = BiSAM(sgd(reference), rho=0.2)
    plain_loop(reference, ref, batches(rows) * 2)
    assert same(model, reference)
    assert opt.param_groups[0]["sharpness_steps"] == 12


def test_running_statistics_are_kept_although_the_optimizer_was_not_told_of_the_model(tmp_path):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.norm, self.head = nn.EmbeddingBag(V, 6), nn.BatchNorm1d(6), nn.Linear(6, K)

        def forward(self, input_ids, labels=None):
            logits = self.head(self.norm(self.words(input_ids)))
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    model = Normed()
    fit(SharpnessAwareTrainer(model, arguments(tmp_path), train_dataset=Rows(), optimizers=(BiSAM(sgd(model)), None)))
    assert model.norm.num_batches_tracked == 6


def test_model_init(tmp_path):
    make = functools.partial(SAM, rho=0.2)
    args = arguments(tmp_path, max_steps=2)
    trainer = SharpnessAwareTrainer(None, args, train_dataset=Rows(), model_init=lambda: classifier(), sharpness=make)
    fit(trainer)
    first = trainer.sharpness_aware
    fit(trainer)
    assert trainer.sharpness_aware is not first
    assert trainer.sharpness_aware.last.perturbed


def test_the_mixin_on_a_trainer_of_ones_own(tmp_path):
    class Theirs(Trainer):
        steps = 0

        def training_step(self, *args, **kwargs):
            self.steps += 1
            return super().training_step(*args, **kwargs)

    class Both(SharpnessAwareTrainerMixin, Theirs):
        pass

    done = fit(Both(classifier(), arguments(tmp_path), train_dataset=Rows(), sharpness=SAM))
    assert done.steps == 12


def test_an_error_in_a_pass_gives_the_weights_back(tmp_path):
    model = classifier()
    before = bits(model)

    class Breaks(SharpnessAwareTrainer):
        calls = 0

        def compute_loss(self, *args, **kwargs):
            self.calls += 1
            assert (bits(model) == before) == (self.calls == 1)
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().compute_loss(*args, **kwargs)

    trainer = Breaks(model, arguments(tmp_path), train_dataset=Rows(), sharpness=BiSAM)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert bits(model) == before


def test_a_schedule_free_base(tmp_path):
    schedulefree = pytest.importorskip("schedulefree")
    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)

    def build(model):
        return SAM(schedulefree.SGDScheduleFree(model.parameters(), lr=0.1), model=model, rho=0.2)

    opt = build(model)
    args = arguments(tmp_path, num_train_epochs=2, eval_strategy="epoch")
    fit(SharpnessAwareTrainer(model, args, train_dataset=rows, eval_dataset=rows, optimizers=(opt, None)))
    ref = build(reference)
    for _ in range(2):
        ref.train()
        plain_loop(reference, ref, batches(rows))
        ref.eval()
    assert same(model, reference)
    assert "train" not in vars(opt)


# -- two workers ---------------------------------------------------------------------------------------------------


def test_two_workers_end_bit_equal(tmp_path):
    script = Path(__file__).parent / "two_process_trainer.py"
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    zero, one = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    for method in ("sam", "bisam"):
        assert zero[method]["digest"] == one[method]["digest"]
        for found in (zero[method], one[method]):
            assert found["model"] == "DistributedDataParallel"
            assert found["world"] == 2
            assert found["steps"] == 3
            assert found["perturbed"]
            assert found["moved"]
        assert zero[method]["ascent"] != one[method]["ascent"], "the workers saw the same batch"


# -- what cannot be right ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sharpness", "words"),
    [
        ("bisam", r"sharpness='bisam' must be a function.*functools\.partial\(bisam\.BiSAM, rho=0\.1\)"),
        (0.05, "sharpness=0.05 must be a function".replace(".", r"\.")),
        (
            lambda model: SAM(torch.optim.SGD(model.parameters(), lr=0.1)),
            r"is a SAM that is built already: pass it as optimizers=\(opt, None\)",
        ),
    ],
)
def test_what_wraps_no_optimizer_is_refused_before_anything_runs(tmp_path, sharpness, words):
    model = classifier()
    sharpness = sharpness(model) if callable(sharpness) else sharpness
    args = transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[])
    with pytest.raises(TypeError, match=words):
        SharpnessAwareTrainer(model=model, args=args, train_dataset=Rows(), sharpness=sharpness)


def test_without_a_sharpness_aware_optimizer_it_says_how(tmp_path):
    trainer = SharpnessAwareTrainer(classifier(), arguments(tmp_path), train_dataset=Rows())
    with pytest.raises(ValueError, match="pass sharpness="):
        trainer.train()
    with pytest.raises(RuntimeError, match="not sharpness-aware"):
        _ = trainer.sharpness_aware


def test_both_ways_at_once_are_refused(tmp_path):
    model = classifier()
    with pytest.raises(ValueError, match="one of the two"):
        SharpnessAwareTrainer(model, arguments(tmp_path), optimizers=(SAM(sgd(model)), None), sharpness=SAM)


def test_a_factory_that_makes_something_else_is_refused(tmp_path):
    trainer = SharpnessAwareTrainer(
        classifier(), arguments(tmp_path), train_dataset=Rows(), sharpness=lambda base, model: base
    )
    with pytest.raises(TypeError, match="returned AdamW"):
        trainer.train()


@pytest.mark.parametrize("descent", [nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(ignore_index=0)])
@pytest.mark.parametrize("method", [SAM, BiSAM])
def test_a_descent_objective_that_would_not_be_called_is_refused(tmp_path, descent, method):
    model = classifier()
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        SharpnessAwareTrainer(model, arguments(tmp_path), optimizers=(method(sgd(model), descent=descent), None))
    make = functools.partial(method, descent=descent)
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        SharpnessAwareTrainer(model, arguments(tmp_path), train_dataset=Rows(), sharpness=make).train()


@pytest.mark.parametrize("optim", ["lomo", "adalomo", "galore_adamw_layerwise", "apollo_adamw_layerwise"])
def test_optimizers_in_the_backward_pass_are_refused(tmp_path, optim):
    with pytest.raises(ValueError, match=r"inside backward\(\)"):
        SharpnessAwareTrainer(classifier(), arguments(tmp_path, optim=optim), sharpness=SAM)


def test_a_layer_wise_dummy_is_refused(tmp_path):
    from transformers.trainer_pt_utils import LayerWiseDummyOptimizer

    model = classifier()
    dummy = LayerWiseDummyOptimizer(optimizer_dict={})
    with pytest.raises(ValueError, match=r"inside backward\(\)"):
        SharpnessAwareTrainer(
            model, arguments(tmp_path), train_dataset=Rows(), optimizers=(dummy, None), sharpness=SAM
        ).train()


@pytest.mark.parametrize("kind", ["DEEPSPEED", "FSDP", "MEGATRON_LM", "XLA"])
def test_engines_that_own_the_gradients_are_refused(tmp_path, kind, monkeypatch):
    """The engines themselves are not installed: accelerate's own account of them is."""
    from accelerate.state import AcceleratorState, DistributedType

    class Claims(SharpnessAwareTrainer):
        def create_accelerator_and_postprocess(self):
            super().create_accelerator_and_postprocess()
            monkeypatch.setitem(AcceleratorState._shared_state, "distributed_type", DistributedType[kind])

    with pytest.raises(ValueError, match="data parallelism"):
        Claims(classifier(), arguments(tmp_path), sharpness=SAM)


def test_an_optimizer_of_another_model_is_refused(tmp_path):
    opt = SAM(sgd(classifier()))
    with pytest.raises(ValueError, match="none of the parameters"):
        SharpnessAwareTrainer(classifier(), arguments(tmp_path), train_dataset=Rows(), optimizers=(opt, None)).train()


@pytest.mark.parametrize(
    ("labels", "model"),
    [
        (lambda ids: float(ids[0]), {"num_labels": 1}),
        (lambda ids: (ids[:K] % 2).float(), {"problem_type": "multi_label_classification"}),
    ],
    ids=["regression", "several labels"],
)
def test_labels_that_are_no_classes(tmp_path, labels, model):
    """BiSAM's lower bound is refused; SAM needs no classes, nor does an ascent objective of one's own."""
    rows = Rows(labels=labels)
    with pytest.raises(ValueError, match=r"are no classes.*ascent=bisam\.BinaryLowerBoundLoss\(\).*SAM or ASAM"):
        SharpnessAwareTrainer(classifier(**model), arguments(tmp_path), train_dataset=rows, sharpness=BiSAM).train()
    fit(SharpnessAwareTrainer(classifier(**model), arguments(tmp_path), train_dataset=rows, sharpness=SAM))

    def own(logits, labels):
        return (logits.squeeze(-1) - labels).abs().mean()

    make = functools.partial(SAM, ascent=own)
    done = fit(SharpnessAwareTrainer(classifier(**model), arguments(tmp_path), train_dataset=rows, sharpness=make))
    assert done.sharpness_aware.last.perturbed


def test_several_labels_a_sample_climb_the_binary_bound(tmp_path):
    rows = Rows(labels=lambda ids: (ids[:K] % 2).float())
    model, make = classifier(problem_type="multi_label_classification"), functools.partial(BiSAM, rho=0.5)
    reference = copy.deepcopy(model)
    opt = make(sgd(model), model=model, ascent=BinaryLowerBoundLoss())
    fit(SharpnessAwareTrainer(model, arguments(tmp_path), train_dataset=rows, optimizers=(opt, None)))
    ref = make(sgd(reference))
    plain_loop(reference, ref, batches(rows), ascent_of=BinaryLowerBoundLoss())
    assert same(model, reference)
    assert opt.last.perturbed
    assert opt.last.ascent_value == ref.last.ascent_value


def test_labels_0_and_1_of_one_logit(tmp_path):
    rows, bce = Rows(labels=lambda ids: float(ids[0] % 2)), nn.functional.binary_cross_entropy_with_logits
    model = classifier(num_labels=1)
    reference = copy.deepcopy(model)
    opt = BiSAM(sgd(model), model=model, rho=0.5, ascent=BinaryLowerBoundLoss())
    done = SharpnessAwareTrainer(
        model,
        arguments(tmp_path),
        train_dataset=rows,
        optimizers=(opt, None),
        compute_loss_func=lambda outputs, labels, num_items_in_batch=None: bce(outputs.logits[:, 0], labels),
    )
    fit(done)
    plain_loop(
        reference,
        BiSAM(sgd(reference), rho=0.5),
        batches(rows),
        loss_of=lambda m, part, items: bce(m(input_ids=part["input_ids"]).logits[:, 0], part["labels"].float()),
        ascent_of=lambda logits, labels: BinaryLowerBoundLoss()(logits[:, 0], labels.float()),
    )
    assert same(model, reference)
    assert opt.last.perturbed
    rows = Rows(labels=lambda ids: float(ids[0]))
    with pytest.raises(ValueError, match="binary labels are 0 or 1"):
        make = functools.partial(BiSAM, ascent=BinaryLowerBoundLoss())
        SharpnessAwareTrainer(classifier(num_labels=1), arguments(tmp_path), train_dataset=rows, sharpness=make).train()


def test_a_sequence_model_of_which_nothing_is_known(tmp_path):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(V, V)

        def forward(self, input_ids, labels=None):
            logits = self.table(input_ids)
            return {"loss": CausalLMLoss(nn.CrossEntropyLoss())(logits, labels), "logits": logits}

    rows = Rows(labels=lambda ids: ids)
    args = arguments(tmp_path, max_steps=2)
    with pytest.raises(ValueError, match="CausalLMLoss"):
        SharpnessAwareTrainer(Tagger(), args, train_dataset=rows, sharpness=BiSAM).train()
    make = functools.partial(BiSAM, ascent=CausalLMLoss(LowerBoundLoss()))
    done = fit(SharpnessAwareTrainer(Tagger(), args, train_dataset=rows, sharpness=make))
    assert done.sharpness_aware.last.perturbed


def test_labels_that_cannot_be_told(tmp_path):
    rows = Rows()
    args = arguments(tmp_path, label_names=["labels", "token_type_ids"])
    for row in rows.rows:
        row["token_type_ids"] = torch.zeros(5, dtype=torch.long)
    with pytest.raises(ValueError, match="one tensor of labels"):
        SharpnessAwareTrainer(classifier(), args, train_dataset=rows, sharpness=BiSAM).train()


def test_a_compute_loss_without_outputs_is_refused(tmp_path):
    class Short(SharpnessAwareTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return model(**inputs).loss

    with pytest.raises(TypeError, match=r"\(loss, outputs\)"):
        Short(classifier(), arguments(tmp_path), train_dataset=Rows(), sharpness=BiSAM).train()
    fit(Short(classifier(), arguments(tmp_path), train_dataset=Rows(), sharpness=SAM))


# -- the page and the example --------------------------------------------------------------------------------------


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = run_page("docs/engines/transformers.md", blocks=6)
    assert namespace["opt"].last.perturbed
    plain = functools.partial(BiSAM, rho=0.0)  # then both losses of the log are the same
    for smoothing, parts in itertools.product((0.0, 0.1), (1, 2)):
        settings = arguments(
            tmp_path,
            max_steps=2,
            logging_strategy="steps",
            logging_steps=2,
            label_smoothing_factor=smoothing,
            gradient_accumulation_steps=parts,
        )
        trainer = namespace["LogsLossAtW"](
            model=namespace["model"], args=settings, train_dataset=namespace["data"], sharpness=plain
        )
        trainer.train()
        (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert entry["loss_at_w"] == pytest.approx(entry["loss"], rel=1e-6)


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(ROOT / "examples" / "transformers_glue.py"))


def test_the_example_learns_and_resumes(tmp_path, example, capsys):
    out = ["--out", str(tmp_path), "--cpu"]
    found = example["main"](out)
    assert found["eval_accuracy"] > 0.8
    checkpoint = max(tmp_path.glob("checkpoint-*"))
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    assert saved["param_groups"][0]["sharpness_steps"] == 60
    with pytest.raises(SystemExit):
        example["main"](out)
    said = capsys.readouterr()
    assert f"{checkpoint} is there from an earlier run: --resume" in said.err
    example["main"]([*out, "--epochs", "21", "--resume"])
    assert len(re.findall("% of 19 right", said.out + capsys.readouterr().out)) == 2
    saved = torch.load(tmp_path / "checkpoint-63" / "optimizer.pt", weights_only=True)
    assert saved["param_groups"][0]["sharpness_steps"] == 63


@pytest.mark.parametrize(
    ("task", "lines", "texts", "labels"),
    [
        ("cola", ['gj04\t1\t\tOne "more.', "gj04\t0\t*\tNo more."], [('One "more.',), ("No more.",)], [1, 0]),
        ("mrpc", ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t7\t8\tA b\tC d"], [("A b", "C d")], [0]),
        ("rte", ["index\tsentence1\tsentence2\tlabel", "0\tA\tB\tentailment"], [("A", "B")], [0]),
        ("sst2", ["sentence\tlabel", "it 's fine \t1"], [("it 's fine ",)], [1]),
    ],
)
def test_the_example_reads_every_task(tmp_path, example, task, lines, texts, labels):
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    samples = example["read"](tmp_path, example["TASKS"][task], "train")
    assert [sample.texts for sample in samples] == texts
    assert [sample.label for sample in samples] == labels
    (tmp_path / "train.tsv").write_text("\n".join([*lines, "torn"]), encoding="utf-8")
    with pytest.raises(ValueError, match=f"line {len(lines) + 1}: no label"):
        example["read"](tmp_path, example["TASKS"][task], "train")


# -- several base optimizers, the class forgotten, and the loss for the log ------------------------------------------


def two(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    return [torch.optim.SGD(matrices, lr=0.05, momentum=0.9), torch.optim.AdamW(rest, lr=0.01)]


@METHODS
def test_several_base_optimizers(tmp_path, method):
    rows, model = Rows(), classifier()
    reference = copy.deepcopy(model)
    opt = method(two(model), model=model, rho=0.2)
    fit(
        SharpnessAwareTrainer(model, arguments(tmp_path, max_grad_norm=0.5), train_dataset=rows, optimizers=(opt, None))
    )
    plain_loop(reference, method(two(reference), model=reference, rho=0.2), batches(rows), clip=0.5)
    assert same(model, reference)


@pytest.mark.parametrize("accumulate", [1, 2])
@METHODS
def test_a_plain_trainer_with_a_sharpness_aware_optimizer_is_told_which_class_to_use(tmp_path, method, accumulate):
    model = classifier()
    opt = method(sgd(model), model=model)
    args = arguments(tmp_path, gradient_accumulation_steps=accumulate)
    with pytest.raises(RuntimeError, match="In Hugging Face's Trainer use SharpnessAwareTrainer"):
        Trainer(model, args, train_dataset=Rows(), optimizers=(opt, None)).train()


@METHODS
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_at_w_is_what_a_plain_trainer_would_log(tmp_path, method, smoothing):
    rows, model = Rows(), classifier()
    seen, expected = [], []

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            batch = batches(rows)[state.global_step]
            logits = model(input_ids=batch["input_ids"]).logits
            expected.append(nn.functional.cross_entropy(logits, batch["labels"], label_smoothing=smoothing).item())

        def on_step_end(self, args, state, control, **kwargs):
            seen.append(done.sharpness_aware.last.loss.item())

    args = arguments(tmp_path, label_smoothing_factor=smoothing)
    done = SharpnessAwareTrainer(
        model,
        args,
        train_dataset=rows,
        optimizers=(method(sgd(model), model=model, rho=0.2), None),
        callbacks=[Watch()],
    )
    done.train()
    assert len(seen) > 3
    assert seen == pytest.approx(expected, rel=1e-5)
