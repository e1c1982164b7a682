import pytest
import torch

from attrain import LRP, AttnLRP, InputXGradient, explain
from studies.nets.small import (
    Mirrored,
    SequenceCNN,
    SeriesCNN,
    SmallCNN,
    StridedCNN,
    TextCNN,
    classifier,
    small_vit,
)


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [("cnn", 1, 28), ("cnn", 3, 8), ("cnn-norm", 3, 8), ("resnet18", 1, 28), ("densenet121", 1, 32)],
)
def test_classifiers_map_images_to_logits(name, channels, size):
    assert classifier(name, classes=7, channels=channels).eval()(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_small_cnn_has_no_batch_norm_so_samples_are_independent():
    net, x = SmallCNN(), torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(net(x)[:1], net(x[:1]))


@pytest.mark.parametrize(("size", "channels", "tokens"), [(8, 1, 16), (28, 1, 49), (56, 3, 49)])
def test_the_small_transformer_has_a_map_before_it_is_trained(size, channels, tokens):
    net, x = small_vit(size, classes=5, channels=channels).eval(), torch.rand(2, channels, size, size)
    result = explain(net, x, 1, AttnLRP())
    assert result.logits.shape == (2, 5) and result.heatmap.shape == x.shape and result.heatmap.abs().max() > 0
    assert net.seq_length == tokens + 1, "and one for the class"


def test_the_small_transformer_refuses_sizes_that_its_patches_do_not_cut():
    with pytest.raises(ValueError, match="multiple of 7 or 4, got size=30"):
        small_vit(30)


@pytest.mark.parametrize("size", [8, 28])
def test_the_strided_network_takes_images_of_its_size(size):
    net = StridedCNN(size).eval()
    assert net(torch.rand(2, 1, size, size)).shape == (2, 10) and not any("Pool" in repr(layer) for layer in net)
    assert size == 8 or sum(p.numel() for p in net.parameters()) == 239594, "as many as the authors'"


def test_the_strided_network_refuses_other_sizes():
    with pytest.raises(ValueError, match="28 or 8 pixels, got size=32"):
        StridedCNN(32)


def test_a_sequence_network_takes_any_length_from_two_kernels_on():
    assert SequenceCNN()(torch.rand(2, 4, 300)).shape == (2, 3)
    assert SequenceCNN(1, 6, 3)(torch.rand(2, 4, 5)).shape == (2, 1)
    assert all((layer.bias == 0).all() for layer in SequenceCNN() if hasattr(layer, "bias"))


def test_a_sentences_logits_do_not_depend_on_the_padding_behind_it():
    net, x = TextCNN(20, 3).eval(), torch.randint(1, 20, (4, 7))
    padded = torch.nn.functional.pad(x, (0, 9))
    torch.testing.assert_close(net(padded), net(x))
    assert net(x[:, :1]).shape == (4, 3), "one word is enough"
    assert not torch.equal(net(x[:, :6]), net(x)), "a word more is not padding"


class FromEmbedding(torch.nn.Module):
    """A TextCNN whose input are its embeddings, (N, T, size)."""

    def __init__(self, net, x):
        super().__init__()
        self.net, self.x = net, x

    def forward(self, h):
        handle = self.net.embedding.register_forward_hook(lambda module, args, output: h)
        try:
            return self.net(self.x)
        finally:
            handle.remove()


@pytest.mark.parametrize("method", [InputXGradient(), LRP(epsilon=1e-9)])
def test_relevance_of_words_adds_up_to_the_logit_less_the_last_bias_and_padding_has_none(method):
    net = TextCNN(20, 3).double().eval()
    x = torch.nn.functional.pad(torch.randint(1, 20, (4, 7)), (0, 3))
    h = net.embedding(x).detach()
    found = explain(FromEmbedding(net, x), h, 1, method)
    torch.testing.assert_close(found.logits, net(x).detach())
    torch.testing.assert_close(found.heatmap.sum((1, 2)), found.logits[:, 1] - net.head.bias[1].detach())
    assert (found.heatmap[:, 7:] == 0).all()


def test_paddings_embedding_stays_zero_when_the_network_learns():
    net, x = TextCNN(20, 3), torch.tensor([[3, 4, 0, 0]])
    descent = torch.optim.Adam(net.parameters(), 0.1)
    for _ in range(3):
        descent.zero_grad()
        net(x)[:, 0].sum().backward()
        descent.step()
    assert (net.embedding.weight[0] == 0).all()


@pytest.mark.parametrize("norm", [False, True])
def test_the_network_for_series_takes_any_length_and_channels(norm):
    net = SeriesCNN(5, channels=2, width=4, norm=norm).eval()
    assert net(torch.randn(3, 2, 1)).shape == net(torch.randn(3, 2, 40)).shape == (3, 5)
    assert [m.out_channels for m in net if isinstance(m, torch.nn.Conv1d)] == [4, 8, 4]
    assert norm == any(isinstance(m, torch.nn.BatchNorm1d) for m in net)


def test_relevance_of_a_series_adds_up_to_its_logit_where_no_layer_has_a_bias():
    net, x = SeriesCNN(3, width=4, norm=False).double().eval(), torch.randn(4, 1, 30).double()
    for layer in net:
        if getattr(layer, "bias", None) is not None:
            torch.nn.init.zeros_(layer.bias)
    found = explain(net, x, 2, InputXGradient())
    torch.testing.assert_close(found.heatmap.sum((1, 2)), found.logits[:, 2])


def test_unknown_model_is_named():
    with pytest.raises(ValueError, match="model must be cnn"):
        classifier("vgg")


def test_a_mirrored_logit_speaks_for_one_class_as_much_as_against_the_other():
    s = torch.tensor([[2.0], [-1.0]])
    assert Mirrored()(s).tolist() == [[-2.0, 2.0], [1.0, -1.0]]
