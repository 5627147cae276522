"""Run the first example of a page as a reader would, with a small model and data.

python .ci/first_example.py README.md
"""

import re
import sys
from pathlib import Path

import torch

import bisam

# A bias before BatchNorm has no gradient but rounding, and may stay as it is.
first = torch.nn.Linear(12, 8, bias=False)
model = torch.nn.Sequential(first, torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
data = torch.utils.data.TensorDataset(torch.randn(32, 12), torch.randint(0, 3, (32,)))
before = [p.detach().clone() for p in model.parameters()]

text = re.search(r"^```python\n(.*?)^```$", Path(sys.argv[1]).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
assert text is not None
reader = {"torch": torch, "model": model, "loader": torch.utils.data.DataLoader(data, 8)}
exec(compile(text[1], sys.argv[1], "exec"), reader)

assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)), "the example trains nothing"
foreign = sorted({"numpy", "scipy", "yaml", "pydantic", "typer", "matplotlib"} & set(sys.modules))
print(
    f"bisam {bisam.__version__} from {Path(bisam.__file__).parent}: loss {reader['loss']:.3f}, beside torch: {foreign}"
)
