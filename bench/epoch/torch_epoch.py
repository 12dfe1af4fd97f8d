import sys
import time

start = time.perf_counter()
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

print(time.perf_counter() - start)

data = np.load(sys.argv[1])
images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).contiguous()
labels = torch.from_numpy(data["labels"])
loader = DataLoader(TensorDataset(images, labels), batch_size=int(sys.argv[2]), shuffle=True)
model = nn.Sequential(
    nn.Conv2d(3, 32, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(64, 64, 3),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(1024, 64),
    nn.ReLU(),
    nn.Linear(64, 10),
)
optimizer = torch.optim.Adam(model.parameters())
loss_function = nn.CrossEntropyLoss()
total = correct = 0
for x, y in loader:
    optimizer.zero_grad()
    logits = model(x.float() / 255)
    loss = loss_function(logits, y)
    loss.backward()
    optimizer.step()
    total += loss.item() * len(y)
    correct += (logits.argmax(1) == y).sum().item()
print(f"loss {total / len(images):.4f}, accuracy {correct / len(images):.4f}")
