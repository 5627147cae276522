"""The settings of ``evidence.py``: data, wrong labels, network, and who meets there."""

from dataclasses import replace

from tuned import Contestant, Setting

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


#: Runs of each trial, and of the test.
TUNING_SEEDS, SEEDS = 2, 10


def _radius(noisy: bool, norm: str) -> float:
    """Return the radius to begin with: wrong labels want a larger one, networks without norms a smaller one then."""
    return 0.05 if not noisy or norm == "none" else 0.2


#: The small versions: what is different from the data set's recipe.
SMALL: dict[str, tuple[str, ...]] = {
    "digits": (),
    "fashion": ("data.train_size=1000", "train.epochs=15", "train.batch_size=64"),
    "cifar10": (
        *("data.train_size=1000", "data.validation_size=1000", "data.image_size=16", "data.augment=flip"),
        *("train.epochs=15", "train.batch_size=64", "train.label_smoothing=0"),
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
    for data, different in SMALL.items():
        for noise, labels in {**NOISES, **(HUMAN if data == "cifar10" else {})}.items():
            for norm in ("batch", "none"):
                network = (f"model.options={{width: 8, norm: {norm}}}",)
                end = "" if norm == "batch" else f"-{norm}"
                radius = _radius(noise != "0", norm)
                small = (*labels, "model.name=resnet-8", *network, *different)
                found[f"{data}-{noise}{end}"] = _setting(data, small, radius)
                if data in WHOLE:
                    whole = (*labels, *WHOLE[data], f"model.options={{norm: {norm}}}")
                    found[f"{data}-whole-{noise}{end}"] = _setting(data, whole, radius)
    for data in ("digits", "fashion"):
        base = replace(found[f"{data}-40"], same=f"{data}-40")
        found[f"{data}-40-ablation"] = replace(base, contestants=ABLATION)
        found[f"{data}-40-equality"] = replace(base, contestants=EQUALITY, seeds=100)
    return found


def _setting(data: str, different: tuple[str, ...], radius: float) -> Setting:
    return Setting(RECIPES[data], different, CONTESTANTS, TUNING_SEEDS, SEEDS, radius)


SETTINGS = _settings()
