"""torch, images, figures."""

from __future__ import annotations

from tests.guard.case import Case


def _torch(name: str, code: str, **more: object) -> Case:
    return Case(name, code, needs=("torch",), **more)  # type: ignore[arg-type]


CASES = (
    _torch("torch.ones at once", "a = torch.ones(int(1.5 * LIMIT) // 4)"),
    _torch("torch.empty, filled in one call", "a = torch.empty(int(1.5 * LIMIT) // 4)\na.fill_(1)"),
    _torch("torch.zeros, in place", "a = torch.zeros(int(0.7 * LIMIT) // 4)\na += 1\nb = a * 2"),
    _torch("many small tensors", "kept = []\nwhile True:\n    kept.append(torch.ones(1000))"),
    _torch("torch.cat that grows", "a = torch.ones(MIB)\nwhile True:\n    a = torch.cat([a, a])"),
    _torch(
        "a training loop that keeps its losses",
        """
model = torch.nn.Sequential(torch.nn.Linear(1000, 1000), torch.nn.ReLU(), torch.nn.Linear(1000, 10))
losses = []
while True:
    losses.append(model(torch.rand(256, 1000)).square().mean())
""",
    ),
    _torch(
        "a training loop with a large batch",
        """
model = torch.nn.Sequential(torch.nn.Linear(100, 2000), torch.nn.ReLU(), torch.nn.Linear(2000, 10))
step = torch.optim.Adam(model.parameters())
for size in (1000, 10_000, LIMIT // 8000):
    loss = model(torch.rand(size, 100)).square().mean()
    step.zero_grad()
    loss.backward()
    step.step()
""",
    ),
    _torch(
        "the state of an optimizer",
        """
model = torch.nn.Linear(1000, LIMIT * 3 // 10 // 4000)
step = torch.optim.Adam(model.parameters())
model(torch.rand(1, 1000)).sum().backward()
step.step()
""",
    ),
    _torch(
        "attention over a long text",
        "n = int((0.45 * LIMIT / 4) ** 0.5)\nq = torch.rand(n, 32)\ns = torch.softmax(q @ q.T, -1)\nt = s + 1",
    ),
    _torch("a layer that is too wide", "n = int((1.5 * LIMIT / 4) ** 0.5)\nlayer = torch.nn.Linear(n, n)"),
    _torch(
        "a convolution with many channels",
        """
x = torch.rand(1, 64, 256, 256)
kept = []
while True:
    kept.append(torch.nn.functional.conv2d(x, torch.rand(64, 64, 3, 3), padding=1))
""",
    ),
    _torch(
        "torch.load again and again",
        "kept = [torch.load('a.pt') for _ in range(6)]",
        setup=("torch.save(torch.ones(LIMIT // 4 // 4), 'a.pt')",),
    ),
    _torch(
        "state_dict copied",
        """
layer = torch.nn.Linear(1000, LIMIT // 5 // 4000)
import copy
kept = [copy.deepcopy(layer.state_dict()) for _ in range(6)]
""",
    ),
    _torch(
        "numpy and torch share, then part",
        "a = torch.ones(LIMIT // 4 // 4).numpy()\nb = [torch.from_numpy(a.astype('f8')) for _ in range(3)]",
    ),
    Case(
        "PIL: a large image",
        "from PIL import Image\nn = int((1.5 * LIMIT / 3) ** 0.5)\nimage = Image.new('RGB', (n, n), 'red')",
    ),
    Case(
        "PIL: convert and resize",
        """
from PIL import Image
n = int((LIMIT / 5) ** 0.5)
image = Image.new('L', (n, n), 1)
other = image.convert('RGBA')
third = other.resize((n, 2 * n))
""",
    ),
    Case(
        "PIL: many thumbnails",
        """
from PIL import Image
image, kept = Image.new('RGB', (600, 600), 'red'), []
while True:
    kept.append(image.resize((500, 500)))
""",
    ),
    Case(
        "PIL: a small file of a large image",
        """
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
n = int((LIMIT / 4) ** 0.5)
Image.new("L", (n, n)).save("a.png", compress_level=1)
kept = [Image.open("a.png").convert("RGB") for _ in range(4)]
""",
    ),
    Case(
        "matplotlib: a large picture",
        """
import matplotlib.pyplot as plt
n = int((LIMIT / 8 / 6) ** 0.5)
kept = []
for _ in range(12):
    figure, axes = plt.subplots()
    axes.imshow(numpy.random.rand(n, n))
    figure.canvas.draw()
    kept.append(figure)
""",
        needs=("numpy",),
    ),
    Case(
        "transformers: a model of its own making",
        """
from transformers import GPT2Config, GPT2LMHeadModel
model = GPT2LMHeadModel(GPT2Config(n_embd=1024, n_head=16, n_layer=max(4, int(1.5 * LIMIT) // 50_000_000)))
""",
        needs=("torch",),
    ),
)
