"""What a step knows of the model: its buffers, its wrappers, its parameters' names."""

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from bisam import ASAM, SAM
from bisam.testing import Net, batches, bits, run_steps
from tests.steps import X, Y, sgd, turn

# -- buffers -----------------------------------------------------------------------------------------------------------


class Drifting(nn.Module):
    """A normalisation that no class list knows: it rebinds its buffer, and counts calls in a plain one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6, dtype=torch.float64))
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("nothing", None)

    def forward(self, x):
        self.calls += 1
        self.mask = ~self.mask
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: torch.compile(m, backend="eager"), lambda m: nn.Sequential(m)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_see_the_first_pass_alone(momentum, wrap):
    """Custom layers, momentum=None, a layer used twice in one forward, a compiled or wrapped model."""

    def make():
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(6, momentum=momentum).double()
        return nn.Sequential(Drifting(), norm, nn.Linear(6, 6).double(), norm, nn.Linear(6, 4).double())

    ours, plain = make(), make()
    wrapped = wrap(ours)
    opt = SAM(sgd(ours), model=wrapped, rho=0.5)
    for x, y in batches(3):
        plain.load_state_dict({**plain.state_dict(), **{n: p.detach() for n, p in ours.named_parameters()}})
        plain(x)
        turn(opt, wrapped, x, y)
        opt.step()
        opt.zero_grad()
        for (name, a), b in zip(ours.named_buffers(), plain.buffers(), strict=True):
            assert torch.equal(a, b), name
    assert ours[1].num_batches_tracked == 6


def test_without_model_statistics_move_twice_and_the_first_step_says_so():
    model = Net()
    opt = SAM(sgd(model))
    with pytest.warns(UserWarning, match=r"1 normalisation layers keep running statistics.*model=model"):
        turn(opt, model)
    assert model.norm.num_batches_tracked == 2
    opt.zero_grad()
    turn(opt, model)  # once: a second warning would be an error here


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(8), nn.SyncBatchNorm(8), nn.InstanceNorm1d(8, track_running_stats=True)]
)
def test_layers_whose_statistics_two_passes_would_move(layer):
    if isinstance(layer, nn.SyncBatchNorm) and not torch.cuda.is_available():
        pytest.skip("SyncBatchNorm runs on accelerators")
    body = nn.Sequential(nn.Unflatten(1, (8, 1)), layer, nn.Flatten()) if "Instance" in repr(layer) else layer
    if "Instance" in repr(layer):
        body = nn.Sequential(nn.Linear(8, 16), nn.Unflatten(1, (8, 2)), layer, nn.Flatten(), nn.Linear(16, 8))
    model = nn.Sequential(nn.Linear(6, 8), body, nn.Linear(8, 4)).double()
    with pytest.warns(UserWarning, match="running statistics"):
        turn(SAM(sgd(model)), model)
    turn(SAM(sgd(model), model=model), model)  # known: nothing to say


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(8, track_running_stats=False), nn.BatchNorm1d(8).eval(), nn.LayerNorm(8)]
)
def test_layers_that_move_no_statistics_are_not_spoken_of(layer):
    model = nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 4)).double()
    turn(SAM(sgd(model)), model)


def test_one_pass_moves_statistics_once_and_nothing_is_said():
    model = Net()
    turn(SAM(sgd(model), rho=0.0), model)
    assert model.norm.num_batches_tracked == 1


class Odd(nn.Module):
    """Buffers that have no plain bits, none of which a forward pass writes; and one that it does write."""

    def __init__(self):
        super().__init__()
        z = torch.randn(3, dtype=torch.complex64)
        self.register_buffer("expanded", torch.zeros(1).expand(5))
        self.register_buffer("conjugate", z.conj())
        self.register_buffer("negative", z.conj().imag)
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("count", torch.zeros(()))
        self.linear = nn.Linear(6, 4).double()

    def forward(self, x):
        self.count += 1
        self.conjugate += 1
        return self.linear(x)


def test_buffers_of_any_kind():
    model = Odd()
    start = model.conjugate.clone()
    opt = SAM(sgd(model), model=model)
    turn(opt, model)
    assert model.count == 1
    torch.testing.assert_close(model.conjugate, start + 1)
    turn(opt, model)
    assert model.count == 2


# -- which model -------------------------------------------------------------------------------------------------------


def test_a_model_given_later_counts_as_one_given_at_once():
    norms = []
    for later in (False, True):
        model = Net()
        opt = ASAM(sgd(model), model=None if later else model)
        if later:
            opt.model = model
        turn(opt, model)
        norms.append(opt.last.norm)
    assert norms[0] == norms[1]
    with pytest.raises(ValueError, match="none of the parameters"):
        opt.model = Net()


def test_sharded_parameters_need_their_model():
    model = Net()
    model.head.weight.device_mesh = "as a DTensor has one"
    with pytest.raises(ValueError, match="pass the model that shards them"):
        SAM(sgd(model))


# -- wrappers ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_under_ddp_with_the_wrapped_model(tmp_path):
    """One gloo process: the same steps and statistics as bare, also where gradients are views into DDP's buckets."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        bare, data = Net(), batches(3)
        run_steps(bare, SAM(sgd(bare), model=bare), data)
        for views in (True, False):
            model = Net()
            wrapped = nn.parallel.DistributedDataParallel(
                model, gradient_as_bucket_view=views, find_unused_parameters=True
            )
            run_steps(wrapped, SAM(sgd(model), model=wrapped), data)
            assert bits(model) == bits(bare)
            assert all(torch.equal(a, b) for a, b in zip(model.buffers(), bare.buffers(), strict=True))
    finally:
        torch.distributed.destroy_process_group()


def test_a_held_loop_does_not_switch_averaging_off_for_good(tmp_path):
    """no_sync() ends, and gives its flag back, before the loop that began inside it does."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(nn.Linear(6, 4).double())
        opt = SAM(sgd(wrapped), model=wrapped)
        with wrapped.no_sync():
            held = opt.passes()
            next(held)(wrapped(X), Y).backward()
        opt.zero_grad()
        assert wrapped.require_backward_grad_sync
    finally:
        dist.destroy_process_group()


# -- engines that hold the weights or the gradients --------------------------------------------------------------------


@pytest.fixture
def alone():
    """A process group of one, which FSDP1 asks for."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("given", ["bare", "none", "wrapped"])
@pytest.mark.filterwarnings("ignore")
def test_fsdp1_is_refused_with_the_way_to_fsdp2_whatever_model_was_given(alone, given):
    """Also where it has wrapped the model after the optimizer was built, as Accelerate does."""
    model = Net()
    opt = SAM(sgd(model), model=None if given == "none" else model)
    wrapped = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"FSDP1.*fully_shard \(FSDP2\); in Accelerate fsdp_version: 2"):
        if given == "wrapped":
            opt.model = wrapped
        next(opt.passes())


def test_an_engine_that_keeps_the_gradients_is_refused_where_there_was_silence():
    """DeepSpeed ZeRO 1 to 3 (0.19.8) leaves every ``p.grad`` None: SAM climbed nothing, and told ``norm`` 0."""
    model = Net()
    before = bits(model)
    opt = SAM(sgd(model), model=model)
    with pytest.raises(RuntimeError, match=r"no parameter of base with a gradient.*DeepSpeed ZeRO.*fsdp_version: 2"):
        for objective in opt.passes():
            objective(model(X), Y).backward()
            model.zero_grad(set_to_none=True)
    assert bits(model) == before
