"""AttnLRP and CP-LRP against twins of the networks whose factors are detached by hand, and finite differences."""

import math
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig

from attrain import LRP, AttnLRP, Gradient, InputXGradient, UnsupportedOperation, explain
from attrain.training import isnet_step
from tests.attrain.oracles import Network

VARIANTS = ("attn", "cp")
TOLERANCE = 1e-9


# ---------------------------------------------------------------- a twin: factors detached by hand


def half(y):
    return y.detach() + 0.5 * (y - y.detach())


def gated(f):
    """f(x) as x times a constant."""

    def twin(x, *args, **kwargs):
        y = f(x, *args, **kwargs)
        return x * (y / x).detach()

    return twin


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    dims = tuple(range(-len(shape), 0))
    centred = x - x.mean(dims, keepdim=True)
    y = centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt().detach()
    return y * weight + bias


def attention(variant):
    def twin(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if enable_gqa:
            key, value = (t.repeat_interleave(query.shape[-3] // key.shape[-3], -3) for t in (key, value))
        scores = half(query @ key.transpose(-2, -1)) * (scale or query.shape[-1] ** -0.5)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None:
            blocked = attn_mask.logical_not() if attn_mask.dtype == torch.bool else None
            scores = scores + attn_mask if blocked is None else scores.masked_fill(blocked, -1e9)
        weights = torch.softmax(scores, -1)
        return half(weights @ value) if variant == "attn" else weights.detach() @ value

    return twin


@pytest.fixture
def twin(monkeypatch):
    """A context in which torch's functions, and what is named besides, have the twin's derivatives."""

    @contextmanager
    def context(variant, patches=()):
        with monkeypatch.context() as patch:
            for name in ("gelu", "silu", "hardswish", "mish"):
                patch.setattr(F, name, gated(getattr(F, name)))
            patch.setattr(torch, "tanh", gated(torch.tanh))
            patch.setattr(F, "layer_norm", layer_norm)
            patch.setattr(F, "scaled_dot_product_attention", attention(variant))
            for owner, name, function in patches:
                patch.setattr(owner, name, function)
            yield

    return context


def by_hand(model, x, target, layer=None, **kwargs):
    """gradient · activation of the twin, at the input or at a layer."""
    at = {}
    if layer is None:
        at["value"] = x = x.clone().requires_grad_()
        handles = []
    else:
        module = model.get_submodule(layer)
        handles = [module.register_forward_hook(lambda m, args, out: at.setdefault("value", out))]
    output = model(x, **kwargs)
    for handle in handles:
        handle.remove()
    logits = getattr(output, "logits", output)
    (gradient,) = torch.autograd.grad(logits[:, target].sum(), at["value"])
    return gradient * at["value"].detach()


def assert_same(found, expected):
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def drawn(model):
    """In double precision and evaluation mode, every parameter drawn: also those that begin at 0 or 1."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    return model.double().eval()


def swin_matmul(variant, matmul=torch.Tensor.matmul):
    """Swin's two matrix products: scores, and weights times values, which are what softmax made."""

    def twin(a, b):
        weights = variant == "cp" and bool(torch.allclose(a.sum(-1), torch.ones((), dtype=a.dtype)))
        return matmul(a.detach(), b) if weights else half(matmul(a, b))

    return twin


# ---------------------------------------------------------------- images

NETWORKS = {
    "vit": lambda: VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5),
    "swin": lambda: SwinTransformer([4, 4], 16, [2, 2], [2, 4], [2, 2], num_classes=5),
    "convnext": lambda: ConvNeXt([CNBlockConfig(16, 24, 1), CNBlockConfig(24, None, 2)], num_classes=5),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_map_of_an_image_network_equals_that_of_its_twin(name, variant, twin):
    model, x = drawn(NETWORKS[name]()), torch.rand(3, 3, 32, 32, dtype=torch.float64)
    found = explain(model, x, 2, AttnLRP(variant))
    assert torch.allclose(found.logits, model(x), rtol=1e-9)
    with twin(variant, [(torch.Tensor, "matmul", swin_matmul(variant))] if name == "swin" else ()):
        assert_same(found.heatmap, by_hand(model, x, 2))


def test_variants_differ_where_there_is_attention_and_nowhere_else():
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    for name, differ in {"vit": True, "convnext": False}.items():
        model = drawn(NETWORKS[name]())
        attn, cp = (explain(model, x, 0, AttnLRP(v)).heatmap for v in VARIANTS)
        assert torch.allclose(attn, cp) != differ


@pytest.mark.parametrize("variant", VARIANTS)
def test_batch_all_classes_layers_and_create_graph_give_the_same_maps(variant):
    model, x = drawn(NETWORKS["vit"]()), torch.rand(3, 3, 32, 32, dtype=torch.float64)
    layer = "encoder.layers.encoder_layer_0.mlp"
    one = [explain(model, x[i : i + 1], 1, AttnLRP(variant), layers=(layer,)) for i in range(3)]
    every = explain(model, x, "all", AttnLRP(variant), layers=(layer,))
    graph = explain(model, x, 1, AttnLRP(variant), layers=(layer,), create_graph=True)
    for result in (every.heatmap[:, 1], graph.heatmap):
        assert torch.allclose(result, torch.cat([e.heatmap for e in one]), rtol=1e-9, atol=1e-12)
    for result in (every.layers[layer][:, 1], graph.layers[layer]):
        assert torch.allclose(result, torch.cat([e.layers[layer] for e in one]), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- tokens


def transformer(name):
    """A tiny network of transformers: model, the layer of its embeddings, and what its twin replaces."""
    t = pytest.importorskip("transformers")
    from transformers import activations
    from transformers.models.llama import modeling_llama as llama

    sizes = dict(vocab_size=30, hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48)
    if name == "bert":
        model = t.BertForSequenceClassification(t.BertConfig(**sizes, num_labels=3))
        return model, "bert.embeddings", [_act(activations.GELUActivation)]
    if name == "gpt2":
        model = t.GPT2ForSequenceClassification(
            t.GPT2Config(vocab_size=30, n_embd=32, n_head=4, n_layer=2, num_labels=3, pad_token_id=0)
        )
        return model, "transformer.wte", [_act(activations.NewGELUActivation)]
    config = t.LlamaConfig(**sizes, num_key_value_heads=2, num_labels=3, pad_token_id=0)
    mlp = lambda m, x: m.down_proj(half(F.silu(m.gate_proj(x)) * m.up_proj(x)))  # noqa: E731
    patches = [(llama.LlamaRMSNorm, "forward", rms_norm(detach=True)), (llama.LlamaMLP, "forward", mlp)]
    return t.LlamaForSequenceClassification(config), "model.embed_tokens", patches


def _act(kind):
    forward = kind.forward
    return kind, "forward", lambda module, x: gated(lambda x: forward(module, x))(x)


def rms_norm(detach):
    """LLaMA's, which rounds to single precision, without that."""

    def forward(module, x):
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
        return module.weight * (x * (scale.detach() if detach else scale))

    return forward


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_map_of_tokens_at_the_embeddings_equals_that_of_its_twin(name, variant, implementation, twin, monkeypatch):
    model, layer, patches = transformer(name)
    model = drawn(model)
    ids, mask = torch.randint(1, 30, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    ids[1, 5:], mask[1, 5:] = 0, 0
    with twin(variant, patches):
        expected = by_hand(model, ids, 2, layer, attention_mask=mask)
    if name == "llama":
        from transformers.models.llama import modeling_llama as llama

        monkeypatch.setattr(llama.LlamaRMSNorm, "forward", rms_norm(detach=False))
    if implementation == "eager":  # its softmax is in single precision
        monkeypatch.setattr(F, "softmax", lambda x, dim, dtype=None, **_: torch.softmax(x, dim))
        model.set_attn_implementation("eager")
    found = explain(model, ids, 2, AttnLRP(variant), layers=(layer,), kwargs={"attention_mask": mask})
    assert found.heatmap is None
    assert_same(found.layers[layer], expected)


# ---------------------------------------------------------------- gates, however spelled

SIGMOID = [
    lambda x: F.silu(x),
    lambda x: x * torch.sigmoid(x),
    lambda x: x.sigmoid() * x,
    lambda x: x / (1 / torch.sigmoid(x)),
    lambda x: torch.mul(x, x.sigmoid()),
    lambda x: x.clone().mul_(x.sigmoid()),
    lambda x: (1 * torch.sigmoid(x)).mul_(x),
    lambda x: F.silu(x.clone(), inplace=True),
    lambda x: F.glu(torch.cat([x, x], 1), 1),
]
GELU = [
    lambda x: F.gelu(x),
    lambda x: nn.GELU()(x),
    lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2))),
    lambda x: 0.5 * (1.0 + torch.erf(x / math.sqrt(2))) * x,
    lambda x: x * torch.special.ndtr(x),
]
TANH_GELU = [
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))),
    lambda x: x * 0.5 * (1.0 + torch.tanh(x * 0.7978845608028654 * (1.0 + 0.044715 * x * x))),
    lambda x: 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()),
]
OTHERS = {
    "mish": [F.mish, lambda x: x * torch.tanh(F.softplus(x))],
    "hardswish": [F.hardswish, lambda x: x * F.relu6(x + 3) / 6, lambda x: x * F.hardsigmoid(x)],
    "tanh": [torch.tanh, lambda x: x.clone().tanh_(), nn.Tanh()],
    "elu": [F.elu, lambda x: F.elu(x.clone(), inplace=True)],
    "quick gelu": [lambda x: x * torch.sigmoid(1.702 * x)],
    "softsign": [F.softsign, lambda x: x / (1 + x.abs())],
    "square": [torch.square, lambda x: x**2, lambda x: x * x, lambda x: x.pow(2)],
    "relu": [F.relu, torch.relu, lambda x: x.clamp(min=0)],
    "leaky relu": [F.leaky_relu, lambda x: torch.where(x > 0, x, 0.01 * x)],
    "relu6": [F.relu6, lambda x: F.hardtanh(x, 0.0, 6.0), lambda x: x.clamp(0, 6)],
}
GATES = {"silu": SIGMOID, "gelu": GELU, "gelu tanh": TANH_GELU, **OTHERS}


@pytest.mark.parametrize(("name", "number"), [(n, k) for n, spelled in GATES.items() for k in range(len(spelled))])
def test_a_gate_however_spelled_is_multiplied_by_y_over_x(name, number):
    net, x = Network(GATES[name][number]), torch.randn(4, 5, dtype=torch.float64)
    h = net.hidden(x)
    ratio = GATES[name][0](h) / h
    expected = (net.v[1, :6] * ratio) @ net.a * x
    assert_same(explain(net, x, 1, AttnLRP()).heatmap, expected)
    assert_same(explain(net, x, 1, AttnLRP(), create_graph=True).heatmap, expected)


@pytest.mark.parametrize("gate", [F.gelu, F.silu, torch.tanh, F.elu, F.mish, F.softsign, lambda x: x * x.sigmoid()])
def test_at_zero_a_gate_has_the_limit_of_its_ratio(gate):
    net, tiny = nn.Identity(), 1e-7
    net.forward = gate
    x = torch.tensor([[0.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(gate(x), x)
    layered = nn.Sequential(nn.Linear(1, 1, bias=True).double(), net)
    with torch.no_grad():
        layered[0].weight.fill_(1.0), layered[0].bias.fill_(-1.0)
    for shift, tolerance in ((0.0, 1e-12), (tiny, 1e-6), (-tiny, 1e-6)):
        at = explain(layered, torch.ones(1, 1, dtype=torch.float64) + shift, 0, AttnLRP()).heatmap
        assert abs(at.item() / (1 + shift) - slope.item()) <= tolerance


# ---------------------------------------------------------------- norms, however spelled


def _standardised(x, scale):
    centred = x - x.mean(-1, keepdim=True)
    return centred * scale(centred)


LAYER_NORMS = [
    lambda x: F.layer_norm(x, (6,)),
    lambda x: torch.layer_norm(x, (6,)),
    lambda x: F.group_norm(x, 1),
    lambda x: F.instance_norm(x[:, None])[:, 0],
    lambda x: _standardised(x, lambda c: torch.rsqrt(c.pow(2).mean(-1, keepdim=True) + 1e-5)),
    lambda x: _standardised(x, lambda c: 1 / torch.sqrt((c * c).mean(-1, keepdim=True) + 1e-5)),
    lambda x: (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5),
    lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5) ** 0.5,
    lambda x: (
        (x - torch.var_mean(x, -1, keepdim=True, correction=0)[1])
        / (torch.var_mean(x, -1, keepdim=True, correction=0)[0] + 1e-5).sqrt()
    ),
]
RMS_NORMS = [
    lambda x: F.rms_norm(x, (6,), eps=1e-6),
    lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    lambda x: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6),
    lambda x: x * (x.square().mean(-1, keepdim=True) + 1e-6).pow(-0.5),
]
LENGTHS = [
    lambda x: F.normalize(x, dim=-1),
    lambda x: x / x.norm(dim=-1, keepdim=True),
    lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True),
    lambda x: x.div(x.pow(2).sum(-1, keepdim=True).sqrt()),
]


@pytest.mark.parametrize("spelled", [*LAYER_NORMS, *RMS_NORMS, *LENGTHS])
def test_a_norm_however_spelled_has_a_constant_scale(spelled):
    net, x = Network(spelled), torch.randn(4, 5, dtype=torch.float64)
    h, v = net.hidden(x), net.v[1, :6]
    if spelled in LAYER_NORMS:
        scale, g = (h.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt(), v - v.mean()
    else:
        length = h.square().mean(-1, keepdim=True) + 1e-6 if spelled in RMS_NORMS else h.square().sum(-1, keepdim=True)
        scale, g = length.sqrt(), v
    assert_same(explain(net, x, 1, AttnLRP()).heatmap, (g / scale) @ net.a * x)


@pytest.mark.parametrize("kind", ["layer", "rms", "group", "instance"])
def test_a_norm_of_many_dimensions_equals_its_twin(kind):
    """Centred by the mean and divided by a detached scale, over what the norm is over."""
    make = {
        "layer": lambda: nn.LayerNorm((4, 3, 2)),
        "rms": lambda: nn.RMSNorm((3, 2)),
        "group": lambda: nn.GroupNorm(2, 4),
        "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    }[kind]
    dims = {"layer": (1, 2, 3), "rms": (-2, -1), "group": (2, 3, 4), "instance": (2, 3)}[kind]
    norm, x = drawn(make()), torch.randn(3, 4, 3, 2, dtype=torch.float64)

    def by_twin(x):
        flat = x.unflatten(1, (2, 2)) if kind == "group" else x
        flat = flat if kind == "rms" else flat - flat.mean(dims, keepdim=True)
        eps = torch.finfo(x.dtype).eps if kind == "rms" else norm.eps
        y = (flat / (flat.square().mean(dims, keepdim=True) + eps).sqrt().detach()).reshape(x.shape)
        channels = (-1, 1, 1) if kind in ("group", "instance") else norm.weight.shape
        return y * norm.weight.view(channels) + (0 if kind == "rms" else norm.bias.view(channels))

    weight = torch.randn(3, 24, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(by_twin(leaf).flatten(1) @ weight[1], leaf, torch.ones(3, dtype=torch.float64))
    found = explain(lambda x: F.linear(norm(x).flatten(1), weight), x, 1, AttnLRP())
    assert_same(found.heatmap, g * x)


# ---------------------------------------------------------------- products


@pytest.mark.parametrize(
    ("product", "share"),
    [
        (lambda h: h * h.flip(1), 2),
        (lambda h: torch.mul(h, h.roll(1, 1)), 2),
        (lambda h: torch.einsum("ni,nj->nij", h, h), 2),
        (lambda h: torch.einsum("ni,nj,nk->nijk", h, h[:, :2], h[:, 1:3]), 3),
        (lambda h: h.unsqueeze(2) @ h.unsqueeze(1), 2),
        (lambda h: torch.bmm(h.unsqueeze(2), h.unsqueeze(1)), 2),
        (lambda h: torch.baddbmm(torch.ones(4, 6, 6).to(h), h.unsqueeze(2), h.unsqueeze(1)), 2),
        (lambda h: 3 * h, 1),
        (lambda h: F.gelu(h) * 0 + h * F.relu(h).flip(1), 2),
        (lambda h: torch.softmax(h, -1), 1),
        (lambda h: (1 * torch.tanh(h * 0)).add_(h) * h.flip(1), 2),
    ],
)
def test_the_gradient_of_a_product_is_divided_among_its_activations(product, share):
    net, x = Network(product), torch.randn(4, 5, dtype=torch.float64)
    expected = explain(net, x, 1, InputXGradient()).heatmap / share
    assert_same(explain(net, x, 1, AttnLRP()).heatmap, expected)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_multihead_attention_equals_its_twin(variant, need_weights):
    layer, x = drawn(nn.MultiheadAttention(8, 2, batch_first=True)), torch.randn(2, 5, 8, dtype=torch.float64)

    def by_twin(x):
        q, k, v = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (q, k, v))
        return layer.out_proj(attention(variant)(q, k, v).transpose(1, 2).flatten(2))

    weight = torch.randn(3, 40, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad((by_twin(leaf).flatten(1) @ weight[1]).sum(), leaf)
    model = lambda x: F.linear(layer(x, x, x, need_weights=need_weights)[0].flatten(1), weight)  # noqa: E731
    assert_same(explain(model, x, 1, AttnLRP(variant)).heatmap, g * x)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("as_numbers", [False, True])
def test_a_row_without_anything_to_attend_to_has_a_finite_map_and_torchs_output(as_numbers, variant):
    mask = torch.ones(5, 5, dtype=torch.bool).tril(-1)  # the first token sees nothing
    mask = torch.zeros(5, 5, dtype=torch.float64).masked_fill(~mask, -math.inf) if as_numbers else mask
    x, weight = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(3, 40, dtype=torch.float64)
    model = lambda x: F.linear(F.scaled_dot_product_attention(x, x, x, mask).flatten(1), weight)  # noqa: E731
    result = explain(model, x, 1, AttnLRP(variant))
    assert result.heatmap.isfinite().all()
    assert torch.allclose(result.logits, model(x))


# ---------------------------------------------------------------- the map is a function of the parameters


class Block(nn.Module):
    """Everything with a rule in one small network."""

    def __init__(self):
        super().__init__()
        self.embed, self.block = nn.Linear(3, 8), nn.TransformerEncoderLayer(8, 2, 6, 0.0, "gelu", batch_first=True)
        self.gate, self.up, self.norm, self.head = (
            nn.Linear(8, 6),
            nn.Linear(8, 6),
            nn.RMSNorm(6, 1e-2),
            nn.Linear(6, 3),
        )

    def forward(self, x):
        h = self.block(self.embed(x))
        h = F.silu(self.gate(h)) * self.up(h) + torch.tanh(self.up(h)) + F.elu(self.gate(h) + 1) * self.up(h).sigmoid()
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-3)
        return self.head(self.norm(h).mean(1))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("zeros", [False, True])
def test_the_maps_derivative_by_the_parameters_equals_finite_differences(variant, zeros):
    net = drawn(Block())
    if zeros:  # activation functions at 0 exactly
        nn.init.zeros_(net.gate.bias), nn.init.zeros_(net.gate.weight)
        nn.init.zeros_(net.up.bias), nn.init.zeros_(net.up.weight)
    x, weight = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)

    def value(create_graph):
        result = explain(net, x, 1, AttnLRP(variant), create_graph=create_graph)
        return (result.heatmap * weight).sum() + (result.logits.square()).sum()

    gradients = torch.autograd.grad(value(True), [*net.parameters()], allow_unused=True)
    for parameter, gradient in zip(net.parameters(), gradients):
        direction, step = torch.randn_like(parameter), 1e-5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
            values.append(value(False).item())
            with torch.no_grad():
                parameter -= sign * step * direction
        found = 0.0 if gradient is None else (gradient * direction).sum().item()
        assert found == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-6)


def test_isnets_step_trains_a_transformer_on_its_map():
    net = VisionTransformer(16, 4, 1, 2, 16, 32, num_classes=3)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.0, 0.2)
    x, y, mask = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]), torch.zeros(4, 16, 16)
    mask[:, 4:12, 4:12] = 1
    optimizer, losses = torch.optim.Adam(net.parameters(), 5e-3), []
    for _ in range(40):
        _, loss, parts = isnet_step(net, x, y, mask, method=AttnLRP(), P=1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(parts["background"].item())
    assert losses[-1] < 0.5 * losses[0]


# ---------------------------------------------------------------- what has no rule


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        (torch.exp, "exp"),
        (lambda h: torch.log(h * h + 1), "log"),
        (torch.sin, "sin"),
        (torch.sigmoid, "sigmoid"),
        (lambda h: h + torch.sigmoid(h), "sigmoid"),
        (lambda h: torch.cat([h, torch.rsqrt(h * h + 1)], 1), "rsqrt"),
        (lambda h: 1 / (1 + h * h) + h, "reciprocal"),
        (F.softplus, "softplus"),
        (lambda h: F.threshold(h, 0.1, 1.0), "threshold"),
        (lambda h: h.clamp(min=0.5) + h, "clamp"),
        (lambda h: h.cumprod(1), "cumprod"),
        (lambda h: h.sort(1).values, "sort"),
        (lambda h: torch.addcmul(h, h, h), "addcmul"),
        (lambda h: F.linear(h, h[:3]), "linear"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(operation, named):
    net, x = Network(operation), torch.randn(4, 5, dtype=torch.float64)
    with pytest.raises(UnsupportedOperation, match=named):
        explain(net, x, 1, AttnLRP())


def test_recurrent_layers_are_refused_by_name():
    lstm, head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
    with pytest.raises(UnsupportedOperation, match="lstm"):
        explain(lambda x: head(lstm(x)[0][:, -1]), torch.randn(2, 5, 3), 1, AttnLRP())


def test_lrps_refusal_of_a_transformer_names_attnlrp():
    with pytest.raises(UnsupportedOperation, match=r"layer_norm.*AttnLRP"):
        explain(NETWORKS["vit"](), torch.rand(1, 3, 32, 32), 1, LRP())


def test_another_variant_is_refused():
    with pytest.raises(ValueError, match='"attn" or "cp", got \'flow\''):
        AttnLRP("flow")


def test_on_a_relu_network_it_is_gradient_times_input():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )
    net, x = drawn(net), torch.rand(2, 1, 8, 8, dtype=torch.float64)
    assert_same(explain(net, x, 0, AttnLRP()).heatmap, explain(net, x, 0, InputXGradient()).heatmap)


@pytest.mark.parametrize("method", [Gradient(), InputXGradient()])
def test_a_transformers_gradient_can_be_trained_on_too(method):
    """Torch's fused attention has no second derivative on a CPU."""
    net, x = drawn(VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=3)), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    result = explain(net, x, 1, method, create_graph=True)
    assert torch.allclose(result.heatmap, explain(net, x, 1, method).heatmap)
    result.heatmap.square().sum().backward()
    assert net.conv_proj.weight.grad.abs().max() > 0


def test_isnets_step_runs_under_autocast():
    net, x = VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=3), torch.rand(2, 3, 16, 16)
    nn.init.normal_(net.heads.head.weight)
    mask = torch.zeros(2, 16, 16)
    mask[:, 4:12, 4:12] = 1
    with torch.autocast("cpu", torch.bfloat16):
        loss = isnet_step(net, x, torch.tensor([0, 1]), mask, method=AttnLRP())[1]
    loss.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
