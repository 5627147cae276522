"""The settings of ``evidence.py``: data, wrong labels, network, and who meets there."""

from dataclasses import dataclass

from tuned import Contestant

#: Who meets in every setting. "tuned as sam" takes SAM's rate and radius.
CONTESTANTS = (
    Contestant("sgd"),
    Contestant("sgd", 2),
    Contestant("sam"),
    Contestant("asam"),
    *(Contestant(f"bisam-{bound}") for bound in ("tanh", "log")),
    *(Contestant(f"bisam-log+{form}") for form in ("asam", "msam")),
    Contestant("momentumsam"),
    Contestant("tailsam@tail=0.4"),
    *(Contestant(f"bisam-{bound}", like="sam") for bound in ("tanh", "log")),
)
#: Every bound with its own constants; then mu, and the constant alpha, of the paper's two.
BOUNDS = (
    *("log", "tanh", "ramp", "softsign", "shifted-tanh"),
    *(f"log@mu={mu}" for mu in (0.3, 3, 10)),
    *(f"tanh@mu={mu}" for mu in (1, 3, 30)),
    *(f"tanh@alpha={alpha}" for alpha in (0.03, 0.3, 1)),
)
ABLATION = (Contestant("sgd"), Contestant("sam"), *(Contestant(f"bisam-{bound}") for bound in BOUNDS))
#: For a statement of equality many seeds are needed, and no tuning but SAM's.
EQUALITY = (
    Contestant("sgd"),
    Contestant("sam"),
    *(Contestant(f"bisam-{bound}", like="sam") for bound in ("tanh", "log")),
)


@dataclass(frozen=True)
class Setting:
    """Where contestants meet.

    Attributes:
        recipe: by name.
        different: what is different from it.
        contestants: who meets.
        tuning_seeds: runs of each trial.
        seeds: runs of the test.
        radii: that SAM tries first.
        same: the setting with the same trainings, whose folder serves here, too.
    """

    recipe: str
    different: tuple[str, ...]
    contestants: tuple[Contestant, ...] = CONTESTANTS
    tuning_seeds: int = 2
    seeds: int = 10
    radii: tuple[float, ...] = ()
    same: str | None = None


def _radii(noisy: bool, norm: str) -> tuple[float, ...]:
    """Return SAM's first radii: wrong labels want larger ones, networks without norms smaller ones."""
    first = (0.1 if noisy else 0.0125) / (4 if norm == "none" and noisy else 1)
    return tuple(first * 2.0**power for power in range(6))


#: The small versions: data set, what is different from its recipe, seeds of the tuning.
SMALL = {
    "digits": ((), 2),
    "fashion": (("data.train_size=2000", "train.epochs=15", "train.batch_size=64"), 2),
    "cifar10": (
        (
            *("data.train_size=2000", "data.validation_size=1000", "data.image_size=16", "data.augment=flip"),
            *("train.epochs=12", "train.batch_size=64", "train.label_smoothing=0"),
        ),
        2,
    ),
}
RECIPES = {"digits": "digits", "fashion": "fashion-mnist", "cifar10": "cifar10"}
#: The whole sets, with a small ResNet: for a GPU, or for a machine with patience.
WHOLE = {
    "fashion": ("data.train_size=null", "data.image_size=null", "model.name=resnet-20", "train.epochs=30"),
    "cifar10": ("model.name=resnet-20", "train.epochs=60", "train.label_smoothing=0"),
}
NOISES = {f"{share}": ("data.noise=symmetric", f"data.label_noise={share / 100:g}") for share in (0, 20, 40, 60)}
HUMAN = {kind: (f"data.noise=cifar-n:{kind}", "data.label_noise=0") for kind in ("worse", "aggre")}


def _settings() -> dict[str, Setting]:
    found = {}
    for data, (different, tuning_seeds) in SMALL.items():
        for noise, labels in {**NOISES, **(HUMAN if data == "cifar10" else {})}.items():
            for norm in ("batch", "none"):
                network = (f"model.options={{width: 8, norm: {norm}}}",)
                end = "" if norm == "batch" else f"-{norm}"
                radii = _radii(noise != "0", norm)
                small = (*labels, "model.name=resnet-8", *network, *different)
                found[f"{data}-{noise}{end}"] = Setting(RECIPES[data], small, tuning_seeds=tuning_seeds, radii=radii)
                if data in WHOLE:
                    whole = (*labels, *WHOLE[data], f"model.options={{norm: {norm}}}")
                    found[f"{data}-whole-{noise}{end}"] = Setting(RECIPES[data], whole, radii=radii)
    for data in ("digits", "fashion"):
        base = found[f"{data}-40"]
        for name, contestants, seeds in (("ablation", ABLATION, 10), ("equality", EQUALITY, 100)):
            found[f"{data}-40-{name}"] = Setting(
                base.recipe, base.different, contestants, base.tuning_seeds, seeds, base.radii, f"{data}-40"
            )
    return found


SETTINGS = _settings()
