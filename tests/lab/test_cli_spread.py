"""What the command says of runs on several devices before any process starts, and of how they end."""

import pytest
import typer

from bisam_lab.cli import ranks
from bisam_lab.cli.signals import Terminated
from bisam_lab.errors import RecipeError
from bisam_lab.recipe import digest, load
from bisam_lab.recipe.engine import EngineRecipe
from bisam_lab.run import fabric
from bisam_lab.run.place import LostError, Place, check_place, place
from bisam_lab.run.setup import check
from bisam_lab.run.team import losing
from tests.lab.test_cli import TINY, in_process

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}


def told(monkeypatch, environment):
    for name in (*TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_the_place_is_what_the_launcher_says():
    assert place({}) is None
    assert place(TORCHRUN) == Place(1, 2, "torchrun")
    assert place({**TORCHRUN, "BISAM_STARTED_BY": "7"}) == Place(1, 2, "torchrun", ours=True)
    assert place(SRUN) == Place(3, 4, "srun")
    assert place({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) is None  # one task, which may start others
    assert place({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) is None  # the script of a batch, and no task of it
    with pytest.raises(RecipeError, match=r"RANK='\?', which is no number"):
        place({**TORCHRUN, "RANK": "?"})


@pytest.mark.parametrize(
    ("environment", "engine", "words"),
    [
        (TORCHRUN, {}, "torchrun has started 2 processes, and the recipe says engine.devices=1"),
        (TORCHRUN, {"devices": 4}, "started 2 processes, and the recipe says engine.devices=4"),
        (
            SRUN,
            {"devices": 4, "nodes": 2},
            "srun has started 4 processes, and the recipe says engine.devices=4 x e",
        ),
    ],
)
def test_another_number_of_processes_is_refused(monkeypatch, environment, engine, words):
    told(monkeypatch, environment)
    with pytest.raises(RecipeError, match=words):
        check_place(EngineRecipe(**engine))


def test_the_right_number_is_taken(monkeypatch):
    told(monkeypatch, SRUN)
    assert check_place(EngineRecipe(devices=2, nodes=2)) == Place(3, 4, "srun")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("bench", "engine.devices=2: bisam bench takes one device: set engine.devices=1"),
        ("rho-range", "engine.devices=2: bisam rho-range takes one device: set engine.devices=1"),
    ],
)
def test_commands_of_one_device_refuse_several(capsys, monkeypatch, tmp_path, command, words):
    monkeypatch.chdir(tmp_path)
    code, said = in_process(capsys, monkeypatch, command, "digits", *TINY, "engine.devices=2")
    assert code == 2
    assert words in said


def test_studies_take_one_machine_a_run():
    check(load("digits", ["engine.devices=2"]), None)
    with pytest.raises(RecipeError, match=r"engine.nodes=2: each run of a study takes the devices of one machine: bi"):
        check(load("digits", ["engine.nodes=2"]), None)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "engine.nodes=2: MASTER_ADDR is not set: give each node MASTER_ADDR, MASTER_PORT and its NODE_RANK"),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "1", "NODE_RANK": "2"}, "NODE_RANK='2' must be a number from 0 to 1"),
        (
            {"MASTER_ADDR": "a", "MASTER_PORT": "x", "NODE_RANK": "0"},
            "MASTER_PORT='x' must be a number from 0 to 6",
        ),
    ],
)
def test_several_nodes_must_find_each_other(capsys, monkeypatch, tmp_path, environment, words):
    told(monkeypatch, environment)
    monkeypatch.chdir(tmp_path)
    code, said = in_process(capsys, monkeypatch, "train", "digits", *TINY, "engine.nodes=2")
    assert code == 2
    assert words in said


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(fabric.torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"engine.accelerator='cuda': torch .* finds none here; use auto or cpu"):
        fabric.build_fabric(EngineRecipe(accelerator="cuda"))
    told(monkeypatch, TORCHRUN)
    monkeypatch.setattr(fabric.torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(fabric.torch.accelerator, "device_count", lambda: 1)
    with pytest.raises(RecipeError, match=r"engine.devices=2: this machine has 1 of them: set engine.devices=1"):
        fabric.join_fabric(EngineRecipe(devices=2))


def test_several_devices_need_processes(monkeypatch):
    told(monkeypatch, {})
    with pytest.raises(RecipeError, match=r"engine.devices=3 needs 3 processes, and nobody has started them"):
        fabric.join_fabric(EngineRecipe(devices=3))


@pytest.mark.parametrize(
    ("codes", "kind", "words"),
    [
        ({0: ranks.LOST, 1: -9}, ChildProcessError, "process 1 of the run was killed .SIGKILL, perhaps because memory"),
        ({0: -15, 1: -11}, ChildProcessError, "process 1 of the run was killed .SIGSEGV.: the same command goes on"),
        ({0: ranks.LOST, 1: -15}, ChildProcessError, "process 1 of the run was killed .SIGTERM."),
        ({0: ranks.LOST, 1: ranks.LOST}, ChildProcessError, "a process of the run on another node has ended"),
        ({0: 143, 1: 130}, Terminated, "^$"),
        ({0: 130, 1: 130}, KeyboardInterrupt, "^$"),
    ],
)
def test_it_is_said_how_the_processes_ended(codes, kind, words):
    with pytest.raises(kind, match=words):
        ranks._explain(codes)


@pytest.mark.parametrize("codes", [{0: 2, 1: 2}, {0: 2, 1: -15}, {0: ranks.LOST, 1: 2}])
def test_what_a_process_has_said_itself_is_not_said_again(codes):
    with pytest.raises(typer.Exit) as left:
        ranks._explain(codes)
    assert left.value.exit_code == 2


def test_digests_count_devices_only_where_there_are_several():
    assert digest(load("digits", ["engine.devices=1", "engine.nodes=1", "sharpness.sync_ascent=false"])) == digest(
        load("digits")
    )
    assert digest(load("digits", ["engine.devices=2"])) != digest(load("digits"))


def test_weights_without_a_gradient_are_explained():
    said = "Expected ... your module has parameters that were not used in producing loss. You can enable ..."
    with (
        pytest.raises(RecipeError, match=r"take no part in the loss, .*: set engine.strategy=fsdp, or freeze"),
        losing(),
    ):
        raise RuntimeError(said)


@pytest.mark.parametrize("said", ["[pair.cc:553] Connection closed by peer [::1]:1", "NCCL: remote process exited"])
def test_a_lost_process_is_told_in_a_sentence(said):
    with pytest.raises(LostError, match="another process of this run has ended: the same command goes on"), losing():
        raise RuntimeError(said)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), losing():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(("rank", "waits"), [(0, []), (1, [15.0])])
def test_the_first_process_says_it_first(monkeypatch, rank, waits):
    waited = []
    monkeypatch.setattr(ranks.time, "sleep", waited.append)
    with pytest.raises(RecipeError, match="no data"), ranks.speaking(Place(rank, 2, "torchrun")):
        raise RecipeError("no data")
    assert waited == waits


@pytest.mark.parametrize(
    ("here", "kind"), [(Place(0, 2, "torchrun"), LostError), (Place(0, 2, "torchrun", True), typer.Exit)]
)
def test_our_launcher_says_itself_that_a_process_is_gone(here, kind):
    with pytest.raises(kind), ranks.speaking(here):
        raise LostError("gone")
