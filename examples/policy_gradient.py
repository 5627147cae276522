"""Policy gradients on CartPole and LunarLander: Adam, SAM and BiSAM, tuned alike, tested clean and in noise.

    python examples/policy_gradient.py                                # CartPole-v1
    python examples/policy_gradient.py --env LunarLander-v3

The policy is a small network; its update is an actor-critic's: the mean of -A log pi(a | s) over many steps, where
the advantage A comes from a learned baseline. SAM climbs that loss. BiSAM needs labels and an error, and actions are no
labels. An action whose advantage is positive can stand for one: Q is here the lower bound of the share of *good*
actions that the greedy policy would not take, weighted by advantage. Actions with a negative advantage have no part in
it: their bound would turn into an upper one. So what BiSAM perturbs against is a policy that forgets its good actions.

Three tests of 16 episodes: the greedy policy; with a fifth of its actions drawn at random; with noise on its weights.

Needs ``pip install 'bisam[lab,examples]'``.
"""

import argparse
import functools
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from bisam import SAM, SharpnessAware
from bisam.functional import lower_bound_loss
from bisam_lab.statistics.tuned import markdown, tuned

#: Environments at once, and steps of each between two updates.
COPIES, STEPS = 16, 64
DISCOUNT, TRACE = 0.99, 0.95
RATES, RADII = (0.003, 0.01, 0.03), (0.005, 0.02, 0.1)
METHODS = ("sam", "bisam-tanh", "bisam-log")
#: Share of random actions, and deviation of the weights' noise as a share of each weight, in the tests.
RANDOM_ACTIONS, WEIGHT_NOISE = 0.2, 0.3


class Batch(NamedTuple):
    """Steps of a policy: states (N, S), the actions taken (N,), and their advantages (N,)."""

    states: Tensor
    actions: Tensor
    advantages: Tensor


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Return two hidden layers of 64."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))


def policy_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return -A log pi(a | s), a mean over the steps."""
    taken = logits.log_softmax(1).gather(1, batch.actions[:, None])[:, 0]
    return -(batch.advantages * taken).mean()


def forgotten(kind: str, logits: Tensor, batch: Batch) -> Tensor:
    """Return the lower bound of the share of good actions that are not the policy's first choice, by advantage."""
    weights = batch.advantages.clamp(min=0)
    each = lower_bound_loss(logits, batch.actions, bound=kind, reduction="none")
    return (weights * each).sum() / weights.sum().clamp(min=1e-12)


def optimizer(method: str, rate: float, rho: float, policy: nn.Module) -> SharpnessAware:
    """Return a method around Adam; Adam alone is SAM of radius 0."""
    base = torch.optim.Adam(policy.parameters(), lr=rate)
    bound = method.removeprefix("bisam-")
    ascent = functools.partial(forgotten, bound) if bound != method else None
    return SAM(base, model=policy, rho=rho, ascent=ascent, descent=policy_loss)


def batches(env: Any, policy: nn.Module, critic: nn.Module, seed: int) -> Iterator[Batch]:
    """Act, and yield the steps between two updates; the critic learns beside it."""
    learns = torch.optim.Adam(critic.parameters(), lr=0.01)
    state = torch.as_tensor(env.reset(seed=seed)[0], dtype=torch.float32)
    while True:
        seen = []
        with torch.no_grad():
            for _ in range(STEPS):
                actions = torch.distributions.Categorical(logits=policy(state)).sample()
                after, reward, ended, cut, _ = env.step(actions.numpy())
                seen.append((state, actions, torch.as_tensor(reward).float(), torch.as_tensor(ended | cut)))
                state = torch.as_tensor(after, dtype=torch.float32)
            values = critic(torch.stack([*(s for s, *_ in seen), state]))[..., 0]
            advantages = estimate(values, [r for _, _, r, _ in seen], [e for *_, e in seen])
        states = torch.stack([s for s, *_ in seen])
        targets = advantages + values[:-1]
        for _ in range(5):
            (critic(states)[..., 0] - targets).square().mean().backward()
            learns.step()
            learns.zero_grad()
        scaled = (advantages - advantages.mean()) / (advantages.std() + 1e-6)
        yield Batch(states.flatten(0, 1), torch.stack([a for _, a, *_ in seen]).flatten(), scaled.flatten())


def estimate(values: Tensor, rewards: list[Tensor], ended: list[Tensor]) -> Tensor:
    """Return generalised advantages (T, copies) of values (T + 1, copies) (arXiv 1506.02438, Eq. 16)."""
    found, following = [], torch.zeros_like(values[0])
    for t in reversed(range(len(rewards))):
        goes_on = 1 - ended[t].float()
        surprise = rewards[t] + DISCOUNT * goes_on * values[t + 1] - values[t]
        following = surprise + DISCOUNT * TRACE * goes_on * following
        found.append(following)
    return torch.stack(found[::-1])


@torch.no_grad()
def returns(env: Any, policy: nn.Module, seed: int, random_actions: float = 0.0) -> float:
    """Return the mean return of the greedy policy over one episode of each copy."""
    draws = np.random.default_rng(seed)
    state, alive, total = env.reset(seed=seed)[0], np.ones(COPIES, bool), np.zeros(COPIES)
    while alive.any():
        actions = policy(torch.as_tensor(state, dtype=torch.float32)).argmax(1).numpy()
        other = draws.integers(env.single_action_space.n, size=COPIES)
        actions = np.where(draws.random(COPIES) < random_actions, other, actions)
        state, reward, ended, cut, _ = env.step(actions)
        total += reward * alive
        alive &= ~(ended | cut)
    return float(total.mean())


@torch.no_grad()
def disturb(policy: nn.Module, seed: int) -> None:
    """Add noise to each weight, in proportion to it."""
    draws = torch.Generator().manual_seed(seed)
    for weight in policy.parameters():
        weight *= 1 + WEIGHT_NOISE * torch.randn(weight.shape, generator=draws)


@functools.cache
def run(name: str, method: str, rate: float, rho: float, seed: int, updates: int) -> dict[str, float]:
    """Train a policy; return its mean return in each test."""
    torch.manual_seed(seed)
    again = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
    env = gym.make_vec(name, num_envs=COPIES, vectorization_mode="sync", vector_kwargs=again)
    inputs, choices = env.single_observation_space.shape[0], int(env.single_action_space.n)
    policy, critic = network(inputs, choices), network(inputs, 1)
    opt = optimizer(method, rate, rho, policy)
    for _, batch in zip(range(updates), batches(env, policy, critic, seed), strict=False):
        for objective in opt.passes():
            objective(policy(batch.states), batch).backward()
        opt.step()
        opt.zero_grad()
    found = {"clean": returns(env, policy, seed), "actions": returns(env, policy, seed, RANDOM_ACTIONS)}
    disturb(policy, seed)
    found["weights"] = returns(env, policy, seed)
    env.close()
    return found


def main() -> None:
    """Tune, compare, print the tables, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=["CartPole-v1", "LunarLander-v3"], default="CartPole-v1")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tuning-seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument(
        "--out", type=Path, help="a JSON file that gets the numbers, beside those of other environments"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds = {"tuning": range(args.tuning_seeds), "seeds": range(1000, 1000 + args.seeds)}

    def of_rate(method: str, rate: float, seed: int) -> float:
        return run(args.env, method, rate, 0.0, seed, args.updates)["clean"] / 100

    rows = tuned(of_rate, {"adam": RATES}, **seeds, tell=print)
    rate = rows[0]["chosen"]

    def of_radius(method: str, rho: float, seed: int) -> float:
        return run(args.env, method, rate, rho, seed, args.updates)["clean"] / 100

    rows += tuned(of_radius, dict.fromkeys(METHODS, RADII), **seeds, tell=print)
    tests = {"clean": rows}
    for test in ("actions", "weights"):
        tests[test] = [
            {**row, "scores": scores(args.env, row, rate, test, seeds["seeds"], args.updates)} for row in rows
        ]
    for test, each in tests.items():
        print(f"\n{test}\n{markdown(each, ['adam', 'sam'], 'return')}")
    if args.out is not None:
        kept = json.loads(args.out.read_text()) if args.out.exists() else {}
        kept[args.env] = {
            "date": time.strftime("%Y-%m-%d"),
            "command": f"python examples/policy_gradient.py --env {args.env} --updates {args.updates} "
            f"--seeds {args.seeds} --tuning-seeds {args.tuning_seeds}",
            "machine": f"{platform.machine()}, one thread, torch {torch.__version__.partition('+')[0]}",
            "tuning": {"values": len(RADII), "seeds": args.tuning_seeds},
            "tests": tests,
        }
        args.out.write_text(json.dumps(kept, indent=1) + "\n")


def scores(env: str, row: dict[str, Any], rate: float, test: str, seeds: range, updates: int) -> list[float]:
    """Return the returns of a row's runs in another test, in hundreds."""
    own, rho = (row["chosen"], 0.0) if row["method"] == "adam" else (rate, row["chosen"])
    return [run(env, row["method"], own, rho, seed, updates)[test] / 100 for seed in seeds]


if __name__ == "__main__":
    main()
