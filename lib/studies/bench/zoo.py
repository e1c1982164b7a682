"""Networks of other libraries, without their weights, as a sweep wants them: a model to (N, C), x, a reference."""

import inspect
import warnings

import torch
from torch import Tensor, nn

SIZES = {"inception_v3": 96, "maxvit": 224, "vit_h_14": 56}
MOST_PARAMETERS = 30e6
Network = tuple[nn.Module, Tensor, Tensor]


# ------------------------------------------------------------------------------------------------ torchvision


def classifier(name: str) -> Network:
    """A network of torchvision's, and images; its batch norms have the data's statistics."""
    import torchvision

    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    size = next((s for prefix, s in SIZES.items() if name.startswith(prefix)), 64)
    options |= {"image_size": size} if name.startswith("vit") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how long scipy's truncated normal takes
        model = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
    if name.startswith("vit"):  # its head starts as zeros, and a constant has nothing to attribute
        nn.init.normal_(model.heads.head.weight)
    return with_statistics(model, size)


def with_statistics(model: nn.Module, size: int) -> Network:
    """A network on images: one training-mode forward gives its batch norms the data's statistics."""
    x = torch.randn(2, 3, size, size)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 3, size, size))
    return model.eval(), x, torch.randn(1, 3, size, size)


# ------------------------------------------------------------------------------------------------ timm


SMALL = "test zepto atto femto pico nano xxs xxt xs tiny t0 s0 a0 b0 mini small 18 11".split()


def family(module: str) -> tuple[nn.Module, Tensor, Tensor, str]:
    """A small network of a module of timm's, at a small size of images."""
    import timm

    name, options = smallest(module)
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **options)
    for p in model.get_classifier().parameters() if isinstance(model.get_classifier(), nn.Module) else ():
        nn.init.normal_(p, std=0.1)  # a head that starts as zeros has nothing to attribute
    built = ", ".join([name, *(f"{key}={value}" for key, value in options.items())])
    own = model.default_cfg["input_size"][-1]
    for size in sorted({96, own} if not model.default_cfg.get("fixed_input_size") else {own}):
        try:
            return *with_statistics(model, size), built
        except Exception:
            if size == own:
                raise
    raise ValueError(f"{name} takes no image of 96 or {own} pixels")


def smallest(module: str) -> tuple[str, dict]:
    """A network of a module of timm's that is small, or else the smallest, with two blocks if that can be asked for."""
    import timm

    rank = lambda name: next((k for k, word in enumerate(SMALL) if word in name), len(SMALL))  # noqa: E731
    sizes = {}
    for name in sorted(timm.list_models(module=module), key=rank):
        sizes[name] = parameters(name)
        if sizes[name] <= MOST_PARAMETERS:
            return name, {}
    name = min(sizes, key=lambda name: sizes[name])
    return name, {"depth": 2} if parameters(name, depth=2) < sizes[name] else {}


def parameters(name: str, **options) -> float:
    """How many parameters a network of timm's has; infinitely many if it cannot be made without numbers."""
    import timm

    with torch.device("meta"):
        try:
            return sum(p.numel() for p in timm.create_model(name, num_classes=10, **options).parameters())
        except Exception:  # it has no such option, or takes a look at its numbers
            return float("inf")


# ------------------------------------------------------------------------------------------------ transformers

# Model types by what they take. Tiny: common names of sizes in configurations, whichever a configuration has.
TEXT = (
    "albert bart bert big_bird bigbird_pegasus biogpt blenderbot bloom camembert canine codegen convbert ctrl deberta "
    "deberta-v2 distilbert dpr electra ernie esm falcon fnet funnel gemma gemma2 gpt2 gpt_bigcode gpt_neo gpt_neox "
    "gptj ibert layoutlm led llama longformer mamba mamba2 marian mbart megatron-bert mistral mixtral mobilebert mpnet "
    "mpt mra nystromformer olmo olmo2 opt pegasus persimmon phi phi3 plbart qwen2 qwen2_moe qwen3 reformer rembert "
    "recurrent_gemma roberta roc_bert roformer rwkv splinter squeezebert stablelm starcoder2 t5 xglm xlm xlm-roberta "
    "xlnet xmod yoso"
).split()
IMAGES = (
    "beit bit convnext convnextv2 cvt data2vec-vision deit dinat dinov2 efficientnet focalnet hiera levit mobilenet_v1 "
    "mobilenet_v2 mobilevit mobilevitv2 poolformer pvt pvt_v2 regnet resnet segformer swiftformer swin swinv2 "
    "timesformer vit vit_mae vit_msn vivit ijepa dinov3_vit siglip_vision_model clip_vision_model"
).split()
SOUND = "hubert wav2vec2 wavlm unispeech unispeech-sat sew sew-d data2vec-audio audio-spectrogram-transformer".split()
TINY = {
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "dim": 32,
    "embedding_size": 32,
    "emb_dim": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "n_inner": 48,
    "d_ff": 48,
    "d_kv": 8,
    "head_dim": 8,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rotary_dim": 8,
    "state_size": 8,
    "window_size": 2,
}
# What goes together in a configuration, or has another form; and no part of an image is drawn to be hidden.
OWN = {
    "esm": {"vocab_size": 99},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "longformer": {"attention_window": [4, 4], "max_position_embeddings": 99},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "reformer": {"axial_pos_shape": [4, 4], "axial_pos_embds_dim": [8, 24], "num_buckets": 4},
    "xmod": {"default_language": "en_XX"},
    "convnext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_hidden_layers": 4, "patch_size": 4},
    "convnextv2": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_hidden_layers": 4, "patch_size": 4},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "image_size": 128},
    "hiera": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "image_size": [64, 64]},
    "levit": {"image_size": 64, "patch_size": 16, "hidden_sizes": [16, 24, 32], "depths": [1, 1, 1]},
    "mobilevitv2": {"image_size": 64, "patch_size": 2, "width_multiplier": 0.25},
    "swin": {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "patch_size": 4},
    "swinv2": {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "patch_size": 4},
    "vit_mae": {"mask_ratio": 0.0},
    "timesformer": {"num_frames": 2},
    "vivit": {"num_frames": 2, "tubelet_size": [1, 8, 8]},
    "audio-spectrogram-transformer": {"max_length": 48, "num_mel_bins": 32},
}


class Pooled(nn.Module):
    """A transformer on what comes behind its embeddings (or pixels, or sound), its states averaged, and a linear layer.

    Args:
        body: a model of transformers'.
        argument: what it is given, `inputs_embeds`, `pixel_values` or `input_values`.
        width: of its states.
    """

    def __init__(self, body: nn.Module, argument: str, width: int):
        super().__init__()
        self.body, self.argument, self.head = body, argument, nn.Linear(width, 3)

    def states(self, x: Tensor) -> Tensor:
        given = {self.argument: x}
        if "decoder_inputs_embeds" in inspect.signature(self.body.forward).parameters and x.ndim == 3:
            given["decoder_inputs_embeds"] = x
        found = self.body(**given)
        states = found["last_hidden_state"] if "last_hidden_state" in found else found[0]
        if states.ndim == 2:  # pooled already
            return states
        return states.flatten(2).mean(2) if states.ndim == 4 else states.mean(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.states(x))


def tiny(model_type: str) -> Network:
    """A tiny configuration of a model type of transformers'."""
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    torch.manual_seed(0)
    kind = CONFIG_MAPPING[model_type]
    plain, computed = kind(), {k for k in TINY if isinstance(getattr(kind, k, None), property)}
    sizes = {k: v for k, v in TINY.items() if isinstance(getattr(plain, k, None), int) and k not in computed}
    config = kind(**sizes | OWN.get(model_type, {}))
    config.use_cache = False  # the next pass would begin where the last ended
    config._experts_implementation = "eager"  # a grouped product has no float64
    config._attn_implementation = "sdpa" if getattr(AutoModel, "_supports_sdpa", True) else "eager"
    try:
        body = AutoModel.from_config(config)
    except ValueError:  # one without that attention
        config._attn_implementation = "eager"
        body = AutoModel.from_config(config)
    body = body.eval()
    if sum(p.numel() for p in body.parameters()) > MOST_PARAMETERS:
        raise ValueError(f"{model_type} is not tiny with these settings")
    argument, x = input_of(model_type, body, config)
    _settle(body, argument, x)
    probe = Pooled(body, argument, 1)
    with torch.no_grad():
        width = probe.states(x[:1]).shape[1]
    torch.manual_seed(1)
    return Pooled(body, argument, width).eval(), x, 0.5 * torch.randn_like(x[:1])


def _settle(body: nn.Module, argument: str, x: Tensor) -> None:
    """Give batch norms the statistics of an input: with small weights and 0 and 1 none would change a digit."""
    norms = [m for m in body.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            body(**{argument: x})
    body.eval()


def input_of(model_type: str, body: nn.Module, config) -> tuple[str, Tensor]:
    """What a model is given by name, and two of them."""
    torch.manual_seed(2)
    if model_type in IMAGES:
        size = getattr(config, "image_size", 64)
        size = size if isinstance(size, int) else size[0]
        video = [config.num_frames] if hasattr(config, "num_frames") else []
        return "pixel_values", torch.randn(2, *video, getattr(config, "num_channels", 3), max(size, 32), max(size, 32))
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):
        return "input_values", torch.randn(2, config.max_length, config.num_mel_bins)
    if model_type in SOUND:
        return "input_values", torch.randn(2, 1200)
    width = body.get_input_embeddings().weight.shape[1]
    return "inputs_embeds", torch.randn(2, 16, width)


# ------------------------------------------------------------------------------------------------ all

BUILDERS = {"torchvision": classifier, "timm": family, "transformers": tiny}


def all_names(absent=()) -> list[str]:
    """library/network, of all libraries but those that are absent."""
    names = []
    if "torchvision" not in absent:
        import torchvision

        names += [f"torchvision/{n}" for n in torchvision.models.list_models(module=torchvision.models)]
    if "timm" not in absent:
        import timm

        names += [f"timm/{n}" for n in timm.list_modules()]
    if "transformers" not in absent:
        names += [f"transformers/{n}" for n in (*TEXT, *IMAGES, *SOUND)]
    return names
