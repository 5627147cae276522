"""Classify nodes of a graph with a two-layer GCN: Adam, SAM and BiSAM, tuned alike and compared on fresh seeds.

    python examples/graph.py                                  # Zachary's karate club, a minute
    python examples/graph.py --graph blocks                   # a random graph of three blocks
    python examples/graph.py --graph cora --data planetoid    # ind.cora.x and so on in that folder

The whole graph is one batch, and the loss counts the few nodes that have a label. So a pass is a pass over the graph,
and BiSAM's lower bound is that of the error on those nodes. A seed draws the weights and the nodes that have a label,
that are there to choose on, and to test on (of Planetoid's graphs, the split is fixed); all methods share them.

Needs ``pip install 'bisam[lab,examples]'``. Planetoid's files are pickles, which are read without running code.
"""

import argparse
import functools
import json
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor, nn

from bisam import ASAM, SAM, BiSAM, SharpnessAware
from bisam_lab.datasets.planetoid import read_planetoid
from bisam_lab.statistics.tuned import markdown, tuned

RADII = (0.02, 0.05, 0.1, 0.2, 0.5)
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
#: What each contestant tries: Adam its rate, and then the others their radius at the rate that Adam has chosen.
GRIDS = {
    "sam": RADII,
    "asam": tuple(10 * rho for rho in RADII),
    "bisam-tanh": RADII,
    "bisam-log": RADII,
}


class Graph(NamedTuple):
    """What a run sees: x (N, F), y (N,), the normalised adjacency (N, N); nodes to train, to choose and to test on."""

    x: Tensor
    y: Tensor
    adjacency: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor


class GCN(nn.Module):
    """Two layers, each a mean over the neighbours (Kipf & Welling, arXiv 1609.02907, Eq. 9)."""

    def __init__(self, inputs: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Return logits (N, K)."""
        hidden = torch.relu(torch.sparse.mm(adjacency, self.first(self.dropout(x))))
        logits: Tensor = torch.sparse.mm(adjacency, self.second(self.dropout(hidden)))
        return logits


def normalised(edges: Tensor, count: int) -> Tensor:
    """Return D^-1/2 (A + I) D^-1/2 of undirected edges (2, E), sparse."""
    loops = torch.arange(count).repeat(2, 1)
    both = torch.cat([edges, edges.flip(0), loops], 1)
    degree = torch.bincount(both[0], minlength=count).float()
    values = degree[both[0]].rsqrt() * degree[both[1]].rsqrt()
    return torch.sparse_coo_tensor(both, values, (count, count), check_invariants=True).coalesce()


def of_networkx(graph: nx.Graph, labels: list[int], each: int, seed: int) -> Graph:
    """Return a graph without features: a node is its own word. ``each`` nodes of a class have a label.

    A third of the others is for the choice.
    """
    draws = torch.Generator().manual_seed(seed)
    y, order = torch.tensor(labels), torch.randperm(len(labels), generator=draws)
    train = torch.cat([order[y[order] == k][:each] for k in range(int(y.max()) + 1)])
    others = order[~torch.isin(order, train)]
    validation, test = others.split([len(others) // 3, len(others) - len(others) // 3])
    edges = torch.tensor(list(graph.edges)).T
    return Graph(torch.eye(len(labels)), y, normalised(edges, len(labels)), train, validation, test)


def karate(seed: int) -> Graph:
    """Zachary's karate club: 34 members, whom each of them follows after the split; two of each side are known."""
    graph = nx.karate_club_graph()
    return of_networkx(graph, [int(graph.nodes[n]["club"] == "Officer") for n in graph.nodes], 2, seed)


def blocks(seed: int) -> Graph:
    """Three blocks of a hundred nodes, ten of each known: an edge in a block has probability 0.05, else 0.01."""
    inside = [[0.05 if a == b else 0.01 for b in range(3)] for a in range(3)]
    graph = nx.stochastic_block_model([100] * 3, inside, seed=seed)
    return of_networkx(graph, [graph.nodes[n]["block"] for n in graph.nodes], 10, seed)


@functools.cache
def planetoid(name: str, folder: Path) -> Graph:
    """Cora, CiteSeer or PubMed in the usual split: rows of x sum to one."""
    found = read_planetoid(folder, name)
    x = torch.from_numpy(found.x)
    x = x / x.sum(1, keepdim=True).clamp(min=1)
    y, edges = torch.from_numpy(found.y), torch.from_numpy(found.edges)
    parts = [torch.from_numpy(part) for part in (found.train, found.validation, found.test)]
    return Graph(x, y, normalised(edges, len(y)), *parts)


def optimizer(method: str, rate: float, rho: float, model: nn.Module) -> SharpnessAware:
    """Return a method around Adam; Adam alone is SAM of radius 0."""
    base = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=5e-4)
    if method.startswith("bisam-"):
        return BiSAM(base, model=model, rho=rho, bound=method.removeprefix("bisam-"))
    return {"adam": SAM, "sam": SAM, "asam": ASAM}[method](base, model=model, rho=rho)


def accuracies(graph: Graph, method: str, rate: float, rho: float, seed: int, epochs: int) -> list[float]:
    """Train once and return the share that is right after the last epoch: of the validation and of the test nodes."""
    torch.manual_seed(seed)
    model = GCN(graph.x.shape[1], 1 + int(graph.y.max()))
    opt = optimizer(method, rate, rho, model)
    for _ in range(epochs):
        for objective in opt.passes():
            objective(model(graph.x, graph.adjacency)[graph.train], graph.y[graph.train]).backward()
        opt.step()
        opt.zero_grad()
    model.eval()
    with torch.no_grad():
        right = (model(graph.x, graph.adjacency).argmax(1) == graph.y).float()
    return [float(right[nodes].mean()) for nodes in (graph.validation, graph.test)]


def main() -> None:
    """Tune, compare, print the table, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", default="karate", help="karate, blocks, or the NAME of Planetoid's ind.NAME.x")
    parser.add_argument("--data", type=Path, default=Path("planetoid"), help="the folder of Planetoid's files")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tuning-seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, help="a JSON file that gets the numbers, beside those of other graphs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = {"karate": karate, "blocks": blocks}.get(args.graph, lambda seed: planetoid(args.graph, args.data))
    graph_of = functools.cache(made)
    seeds = {"tuning": range(args.tuning_seeds), "seeds": range(1000, 1000 + args.seeds)}

    @functools.cache
    def trained(method: str, rate: float, rho: float, seed: int) -> list[float]:
        return accuracies(graph_of(seed), method, rate, rho, seed, args.epochs)

    def of_rate(part: int, method: str, rate: float, seed: int) -> float:
        return trained(method, rate, 0.0, seed)[part]

    def of_radius(part: int, method: str, rho: float, seed: int) -> float:
        return trained(method, rows[0]["chosen"], rho, seed)[part]

    rows: list[dict[str, Any]] = []
    for number, grids in ((of_rate, {"adam": RATES}), (of_radius, GRIDS)):
        validation, test = (functools.partial(number, part) for part in (0, 1))
        rows += tuned(test, grids, **seeds, validation=validation, tell=print)
    print(markdown(rows, ["adam", "sam"], "test accuracy %"))
    if args.out is not None:
        kept = json.loads(args.out.read_text()) if args.out.exists() else {}
        kept[args.graph] = {
            "date": time.strftime("%Y-%m-%d"),
            "command": f"python examples/graph.py --graph {args.graph} --seeds {args.seeds} "
            f"--tuning-seeds {args.tuning_seeds} --epochs {args.epochs}",
            "machine": f"{platform.machine()}, one thread, torch {torch.__version__.partition('+')[0]}",
            "tuning": {"values": len(RADII), "seeds": args.tuning_seeds},
            "rows": rows,
        }
        args.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
