"""``bisam bench``: what it counts is right, whatever the machine; how long steps take is not tested."""

import copy
import functools
import json

import pytest
import torch
from torch import nn

import bisam_lab
from bisam import SAM, WSAM
from bisam.testing import bits
from bisam_lab import recipe as recipes
from bisam_lab.bench import bench, contestants, every_method, peers
from bisam_lab.bench.memory import metered
from tests.lab.test_cli import bisam, in_process

SMALL = ["model.options.width=2", "data.train_size=96", "data.validation_size=50", "train.batch_size=16"]


def measured(methods, *given, rounds=1, **kwargs):
    return bench(recipes.load("digits", [*SMALL, f"methods=[{methods}]", *given]), rounds=rounds, minimum=0, **kwargs)


def rows_of(report):
    assert not [row.error for row in report.rows if row.error]
    return {(row.peer is not None, row.name): row for row in report.rows}


@pytest.fixture(scope="module")
def report():
    return measured("sgd,sam,looksam,esam,msam,aesam,bisam-log,bisam-log+gsam", rounds=2)


@pytest.mark.parametrize(
    ("name", "pairs", "forward"),
    [
        *(("sgd", 1, 0), ("sam", 2, 0), ("looksam", 1.2, 0), ("esam", 1.5, 1), ("msam", 2, 0), ("bisam-log", 2, 0)),
        ("bisam-log+gsam", 3, 0),
    ],
)
def test_counted_passes_are_those_of_the_definition(report, name, pairs, forward):
    row = rows_of(report)[False, name]
    assert (row.passes.low, row.passes.forward) == pytest.approx((pairs, forward))
    assert (row.expected.low, row.expected.high, row.expected.forward) == pytest.approx((pairs, pairs, forward))


def test_an_adaptive_cadence_runs_through_its_course(report):
    row = rows_of(report)[False, "aesam"]
    assert (row.expected.low, row.expected.high) == (1, 2)
    assert 1 <= row.passes.low <= 2
    steps = report.rounds * contestants.UNDECIDED
    assert row.passes.low * steps == pytest.approx(round(row.passes.low * steps)), "whole passes of whole cycles"


@pytest.mark.parametrize(
    ("name", "pairs"),
    [("tailsam@tail=0.2", 1.2), ("bisam-log+tailsam@tail=0.6", 1.6), ("tailsam@tail=0.01", 1.01), ("every@k=3", 4 / 3)],
)
def test_every_measurement_has_its_share_of_the_steps_that_perturb(name, pairs):
    row = rows_of(measured(name, rounds=2, peers=False))[False, name]
    assert row.expected.low == row.expected.high == pytest.approx(pairs)
    assert row.passes.low == pytest.approx(pairs)
    assert row.extra_peak > 0, "of a step that perturbs"


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_measurement_of_more_steps_than_the_training_stays_within_its_schedule(schedule):
    """Behind its end the learning rate is zero or negative, and so is the radius that follows it."""
    given = ["train.epochs=1", f"train.schedule={schedule}", "train.warmup=0.2"]
    problem = contestants.Problem(recipes.load("digits", [*SMALL, *given, "methods=[gsam]"]), None)
    gsam = problem.method("gsam", 100)
    gsam.run(problem.batches[0] for _ in range(problem.steps))
    before = [p.detach().clone() for p in gsam.model.parameters()]
    gsam.run(problem.batches[:1])
    assert gsam.expected.low == 2
    assert not any(torch.equal(a, b) for a, b in zip(before, gsam.model.parameters(), strict=True))


def test_every_number_is_there(report):
    assert report.batch == 16
    assert report.parameters == 1320
    assert report.weights == 4 * report.parameters
    assert report.steps_per_second > 0
    assert len(report.seconds) == 1 + report.rounds * len(report.rows)
    for row in report.rows:
        low, middle, high = row.quartiles()
        assert len(row.seconds) == len(row.ratios) == 2
        assert 0 < low <= middle <= high


def test_memory_beyond_the_base(report):
    rows, weights = rows_of(report), report.weights
    assert report.memory.kept >= 2 * weights, "weights and momentum"
    small = 1000  # bytes: the numbers of the last step, and the output that opt.last holds
    for name, kept in {"sgd": 0, "sam": 0, "bisam-log": 0, "looksam": 1, "msam": 0}.items():
        assert rows[False, name].extra_kept == pytest.approx(kept * weights, abs=small), name
    assert rows[False, "sam"].extra_peak >= weights, "the weights are copied while they are moved"
    assert rows[False, "msam"].extra_peak < 0, "a quarter of the batch's activations"
    again = rows_of(measured("sam", peers=False))[False, "sam"]
    assert again.memory == rows[False, "sam"].memory, "the same to the byte"


def linear(kind):
    """Peak and kept bytes of the third step on 64 x 64 weights, whose loss is the sum of 16 x 64 outputs."""
    x = torch.randn(16, 64)

    def step(net, opt):
        if isinstance(opt, SAM):
            for loss in opt.passes():
                loss(net(x), None).backward()
        else:
            net(x).sum().backward()
        opt.step()
        opt.zero_grad()

    with metered(torch.device("cpu")) as meter:
        net = nn.Linear(64, 64, bias=False)
        opt = kind(net.parameters())
        for _ in range(3):
            meter.reset()
            step(net, opt)
        peak, kept = meter.peak, meter.live
        del net, opt
    return peak, kept, meter


def test_memory_of_a_layer_is_known_to_the_byte():
    weights, scalars = 64 * 64 * 4, 100
    peak, kept, meter = linear(lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9))
    assert kept == 2 * weights, "weights and momentum"
    assert 0 <= peak - 3 * weights <= scalars, "and gradients, at the end of backward"
    assert meter.live == 0, "what is gone does not count"
    assert linear(lambda params: torch.optim.SGD(params, lr=0.1))[1] == weights
    assert linear(lambda params: torch.optim.Adam(params))[1] == pytest.approx(3 * weights, abs=scalars)
    peak, kept, _ = linear(
        lambda params: SAM(torch.optim.SGD(params, lr=0.1, momentum=0.9), descent=lambda out, _: out.sum())
    )
    outputs = 2 * 16 * 64 * 4
    assert kept == pytest.approx(2 * weights + outputs / 2, abs=scalars), "and the output at w, opt.last.output"
    assert 0 <= peak - (4 * weights + outputs) <= scalars, "and a copy of the weights, and both passes' outputs"


def test_a_view_of_what_was_there_before_costs_nothing():
    before = torch.ones(1000)
    with metered(torch.device("cpu")) as meter:
        assert before.view(10, 100).t()[3].shape == (10,)
        assert meter.peak == 0
        double = before + before
        assert meter.live == double.nbytes
        half = double[:500]
        del double
        assert meter.live == 2 * half.nbytes, "the storage is still held"


def test_the_real_peers_are_rows_beside_ours():
    names = ["sam", "asam", "gsam", "wsam", "looksam", "friendlysam"]
    rows = measured(",".join(names)).rows
    assert [row.name for row in rows if row.peer is None] == names
    theirs = [row for row in rows if row.peer]
    assert [row.name for row in theirs] == ["SAM", "SAM (adaptive)", "GSAM", "WSAM", "LookSAM", "FriendlySAM"]
    for row in theirs:
        assert row.peer == peers.installed()
        assert row.peer.startswith("pytorch_optimizer ")
        assert row.error is None, row.error
        assert row.expected is None
        assert row.passes.low == 2, "its LookSAM too: it runs the second pass on every step, and uses one in k"


@pytest.mark.parametrize(("name", "ours"), [("SAM", SAM), ("WSAM", lambda base: WSAM(base, gamma=0.8))])
def test_the_peer_takes_our_step(name, ours):
    """Three steps in float64. The peer takes its norm in float32, so that eps agrees to 1e-7 of its length only."""
    package = pytest.importorskip("pytorch_optimizer")
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    second, start = copy.deepcopy(first), copy.deepcopy(first)
    x, y = torch.randn(16, 6, dtype=torch.float64), torch.randint(0, 4, (16,))
    opt = ours(torch.optim.SGD(first.parameters(), lr=0.1, momentum=0.9))
    base = {"base_optimizer": torch.optim.SGD, "lr": 0.1, "momentum": 0.9, "rho": 0.05}
    if name == "SAM":
        peer = package.SAM(second.parameters(), **base)
    else:
        peer = package.WSAM(second, second.parameters(), gamma=0.8, decouple=False, **base)

    def closure():
        peer.zero_grad()
        loss = nn.functional.cross_entropy(second(x), y)
        loss.backward()
        return loss

    for _ in range(3):
        for loss in opt.passes():
            loss(first(x), y).backward()
        opt.step()
        opt.zero_grad()
        if name == "SAM":
            closure()
        peer.step(closure)
    assert bits(first) != bits(start)
    for mine, theirs, was in zip(first.parameters(), second.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-7 * float((mine - was).detach().norm()))


def test_peers_in_mixed_precision():
    rows = measured("sam,gsam,wsam", "engine.precision=bf16-mixed").rows
    assert [row.error for row in rows] == [None] * 6
    assert all(row.passes.low == 2 for row in rows)


def test_a_peer_that_fails_is_a_row_with_its_reason(monkeypatch):
    package = pytest.importorskip("pytorch_optimizer")

    def broken(*args, **kwargs):
        raise TypeError("rho is now called radius\nand more")

    monkeypatch.setattr(package, "SAM", broken)
    ours, theirs = measured("sam").rows
    assert ours.error is None
    assert (theirs.error, theirs.ratios) == ("TypeError: rho is now called radius", ())
    monkeypatch.delattr(package, "SAM")
    assert "SAM" in measured("sam").rows[1].error


def test_without_peers_and_without_the_package(monkeypatch):
    assert [row.peer for row in measured("sam", peers=False).rows] == [None]
    monkeypatch.setattr(peers, "PACKAGE", "not_installed_at_all")
    assert [row.peer for row in measured("sam").rows] == [None]


def test_the_base_is_the_recipes_optimizer():
    report = measured("adamw,sam", "train.optimizer=adamw", "train.lr=0.001")
    assert report.optimizer == "adamw"
    assert report.memory.kept >= 3 * report.weights, "weights and two moments"
    assert rows_of(report)[True, "SAM"].extra_kept == pytest.approx(0, abs=200), "the peer's base is the same"
    assert {"adamw", "sam", "msam"} <= set(every_method("adamw"))
    assert not {"sgd", "bisam"} & set(every_method("adamw"))


def test_the_command_prints_json(tmp_path):
    done = bisam("bench", *SMALL, "--methods", "sam", "--rounds", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["name"] for row in found["rows"]] == ["sam", "SAM"]
    for row in found["rows"]:
        assert set(row["ratio"]) == {"low", "median", "high"}
        assert len(row["seconds"]) == 1
    assert found["machine"]["packages"]["torch"] == torch.__version__
    assert not list(tmp_path.iterdir()), "it leaves no files"


def test_the_table_shows_every_row(capsys, monkeypatch):
    real = peers.peer

    def fails_after_the_first(method, problem):
        if method.name == "asam":
            raise ValueError("no such thing [here]")
        return real(method, problem)

    monkeypatch.setattr("bisam_lab.bench.peer", fails_after_the_first)
    monkeypatch.setattr("bisam_lab.bench.bench", functools.partial(bench, minimum=0))
    monkeypatch.setattr("sys.argv", ["bisam", "bench", *SMALL, "--methods", "sam,asam", "--rounds", "1"])
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    assert left.value.code == 0, "a peer's failure is not ours"
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "│" in line]
    assert [line.split("│")[1].split()[-1] for line in lines] == ["sam", "SAM", "asam", "(adaptive)"]
    assert "[quartiles]" in out
    assert "ValueError: no such thing [here]" in out
    assert "1,320 parameters" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--methods", "sma"], "did you mean sam?"),
        (["--methods", "adam"], "name sgd instead"),
        (["nowhere"], "neither a file nor a name of"),
    ],
)
def test_errors_are_one_sentence_and_code_2(args, words, capsys, monkeypatch):
    code, said = in_process(capsys, monkeypatch, "bench", *args)
    assert code == 2
    assert words in said
    assert "Traceback" not in said


def test_interrupted(capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("bisam_lab.bench.measure_memory", interrupt)
    code, said = in_process(capsys, monkeypatch, "bench", *SMALL)
    assert code == 130
    assert said.startswith("Interrupted. ")


def test_a_method_of_ours_that_fails_is_code_1(capsys, monkeypatch):
    monkeypatch.setattr("bisam_lab.bench.contestants.Problem.method", lambda self, name, timed: 1 / 0)
    code, _ = in_process(capsys, monkeypatch, "bench", *SMALL, "--methods", "sam", "--no-peers", "--rounds", "1")
    assert code == 1
