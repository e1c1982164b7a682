"""The example of `own_inputs`: a network of two inputs, a request's words and three facts about who makes it."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain.training import fit, plain_step
from data_prep import booking_requests

FACTS = ("balance", "orders so far", "lucky number")
SHOWN = 4  # requests of each kind


class RequestNetwork(nn.Module):
    """Is the request to be carried out? A journey or a meal must be wanted, and the balance positive.

    Input: word numbers (N, T), 0 where a sentence has ended, and facts (N, 3); output logits (N, 2): no, yes.
    """

    def __init__(self, vocabulary: int, width: int = 32):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.words = nn.Conv1d(width, 2 * width, 3, padding=2)
        self.facts = nn.Linear(len(FACTS), width)
        self.hidden = nn.Linear(3 * width, width)
        self.head = nn.Linear(width, 2)

    def forward(self, words: Tensor, facts: Tensor) -> Tensor:
        said = F.relu(self.words(self.embedding(words).movedim(-1, 1))).amax(-1)
        known = F.relu(self.facts(facts))
        return self.head(F.relu(self.hidden(torch.cat([said, known], 1))))


@cache
def _requests() -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Words, facts and labels, of training and of test requests: of the facts the balance decides, no other."""
    data, draws = booking_requests.load(), torch.Generator().manual_seed(0)
    parts = []
    for split in ("train", "test"):
        words, wanted = data[f"{split}_x"], data[f"{split}_y"] % 2 == 0
        facts = torch.randn(len(words), len(FACTS), generator=draws)
        parts.append((words, facts, (wanted & (facts[:, 0] > 0)).long()))
    return parts[0], parts[1]


def model() -> nn.Module:
    """The network, trained on 800 requests: seconds."""
    torch.manual_seed(0)
    network = RequestNetwork(len(booking_requests.words()))

    def step(net, words, labels, facts):
        return plain_step(lambda read: net(read, facts), words, labels)

    words, facts, labels = _requests()[0]
    order = torch.Generator().manual_seed(0)
    fit(network, (words, labels, facts), step, epochs=30, lr=3e-3, generator=order)
    return network


def examples() -> dict:
    """Test requests as `own_inputs` takes them: half of them to be carried out."""
    words, facts, labels = _requests()[1]
    chosen = torch.cat([(labels == label).nonzero()[:SHOWN, 0] for label in (1, 0)])
    vocabulary = booking_requests.words()
    return {
        "x": {"words": words[chosen], "facts": facts[chosen]},
        "target": 1,
        "names": {"words": lambda ids: [vocabulary[i] if i else "·" for i in ids], "facts": FACTS},
        "classes": ("no", "yes"),
    }
