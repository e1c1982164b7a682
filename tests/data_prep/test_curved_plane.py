import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from data_prep import curved_plane, dataset
from data_prep.curved_plane import BOUNDARIES, Surface, grid, load, signed_distance, truth

SHEETS = [Surface(), Surface(dim=6, frequency=0.5, seed=3), Surface(dim=200, frequency=4.0, seed=1)]


def points(n=200, seed=0):
    return 2 * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


# ---------------------------------------------------------------- the surface


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda s: f"dim {s.dim}")
def test_lengths_on_the_surface_are_those_on_the_square_times_the_factor(sheet):
    """JᵀJ = factor²·I, with the Jacobian by automatic differentiation."""
    jacobian = torch.autograd.functional.jacobian
    J = torch.stack([jacobian(lambda v: sheet.embed(v[None])[0], u) for u in points(20)])
    assert sheet.factor == pytest.approx(math.sqrt(sheet.dim) * sheet.frequency)
    assert torch.allclose(J.mT @ J, (sheet.factor**2 * torch.eye(2)).double().expand(20, 2, 2), rtol=1e-9, atol=1e-9)
    assert torch.allclose(sheet.tangents(points(20)), J / sheet.factor, atol=1e-12)


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda s: f"dim {s.dim}")
def test_no_two_points_of_the_square_coincide(sheet):
    """`closeness` bounds every ratio of straight distance to distance on the surface, which itself is never above 1."""
    u = points(400)
    ratio = torch.cdist(sheet.embed(u), sheet.embed(u)) / (sheet.factor * torch.cdist(u, u))
    ratio = ratio[~torch.eye(400, dtype=torch.bool)]
    assert 0.05 < sheet.closeness() <= ratio.min() + 0.01 and ratio.max() <= 1 + 1e-9
    assert ratio.max() > 0.98, "neighbours"


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda s: f"dim {s.dim}")
def test_the_surface_is_bent_and_of_unit_size(sheet):
    x = sheet.embed(points())
    assert torch.allclose(x.square().sum(1), torch.tensor(float(sheet.dim)).double()), "on a sphere"
    assert torch.linalg.matrix_rank(x - x.mean(0)) > 4, "not in a plane"


def test_a_surface_is_its_seeds():
    u = points(5).float()
    assert torch.equal(Surface(seed=1).embed(u), Surface(seed=1).embed(u))
    assert not torch.allclose(Surface(seed=1).embed(u), Surface(seed=2).embed(u), atol=0.1)


def test_noise_stands_at_right_angles_to_the_surface():
    sheet, u = Surface(), points(500)
    noise = sheet.noise(u, 0.3, torch.Generator().manual_seed(0))
    within = sheet.tangents(u).mT @ noise[..., None]
    assert within.abs().max() < 1e-6
    assert noise.square().sum(1).mean().item() == pytest.approx(0.09 * (50 - 2), rel=0.02), "two directions are missing"
    assert not sheet.noise(u, 0.0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 7}, "dim must be even and at least 4, got 7"),
        ({"dim": 2}, "dim must be even"),
        ({"frequency": 0.0}, "frequency must be > 0"),
        ({"dim": 4, "frequency": 3.0}, "meets itself"),
    ],
)
def test_surfaces_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Surface(**arguments)


# ---------------------------------------------------------------- classes and distances


def place(boundary, t):
    """A point of the boundary, written anew, with t in [−1, 1]."""
    if boundary == "wave":
        return t, 0.45 * math.sin(2 * math.pi * t)
    r = math.sqrt(2) * abs(t)
    angle = 1.25 * math.pi * r + math.pi / 2 + (math.pi if t < 0 else 0)
    return r * math.cos(angle), r * math.sin(angle)


def nearest(boundary, u):
    """Distance to the boundary by minimisation."""

    def distance(t):
        a, b = place(boundary, t)
        outside = max(abs(a), abs(b)) > 1
        return math.hypot(u[0] - a, u[1] - b) + 1e3 * outside

    start = min((i / 500 - 1 for i in range(1001)), key=distance)
    bounds = (max(-1, start - 0.004), min(1, start + 0.004))
    return minimize_scalar(distance, bounds=bounds, method="bounded", options={"xatol": 1e-9}).fun


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_distances_are_the_true_ones(boundary):
    u = points(40)
    expected = torch.tensor([nearest(boundary, p) for p in u.tolist()])
    error = signed_distance(u, boundary).abs() - expected
    assert error.abs().max() < 3e-4


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_boundary_has_distance_zero_and_parts_the_classes(boundary):
    t = torch.linspace(-0.68, 0.68, 200)
    b = torch.tensor([place(boundary, s) for s in t.tolist()], dtype=torch.float64)
    assert signed_distance(b, boundary).abs().max() < 3e-4
    along = torch.tensor([place(boundary, s + 1e-4) for s in t.tolist()], dtype=torch.float64) - b
    across = 5e-3 * torch.stack([-along[:, 1], along[:, 0]], 1) / along.norm(dim=1, keepdim=True)
    left, right = (truth((b + side * across).clamp(-1, 1), boundary)["y"] for side in (1, -1))
    assert (left != right).all()


@pytest.mark.parametrize("boundary", BOUNDARIES)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_distance_grows_no_faster_than_one_walks_and_opposite_points_differ(boundary, seed):
    u, v = points(50, seed), points(50, seed + 1)
    d, e = signed_distance(u, boundary), signed_distance(v, boundary)
    same = d.sign() == e.sign()
    assert ((d - e).abs() <= (u - v).norm(dim=1) + 6e-4)[same].all()
    assert (truth(-u, boundary)["y"] == 1 - truth(u, boundary)["y"]).all()
    assert torch.allclose(signed_distance(-u, boundary), -d, atol=6e-4)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_both_classes_cover_half_of_the_square(boundary):
    assert truth(grid(100), boundary)["y"].bincount().tolist() == [5000, 5000]
    assert load(n=4000, boundary=boundary)["y"].float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_classes_of_known_points():
    u = torch.tensor([[0.0, 0.1], [0.0, -0.1], [0.25, 0.4], [0.25, 0.5]])
    assert truth(u)["y"].tolist() == [1, 0, 0, 1]
    assert truth(torch.tensor([[0.05, 0.0], [-0.05, 0.0], [0.8, 0.0]]), "spiral")["y"].tolist() == [1, 0, 0]


def test_the_grid_runs_row_by_row_from_the_lowest():
    assert torch.allclose(grid(2), torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]))
    assert torch.equal(grid(7), -grid(7).flip(0))


@pytest.mark.parametrize(
    ("u", "boundary", "message"),
    [
        ([[0.0, 0.0]], "circle", "boundary must be one of 'wave', 'spiral', got 'circle'"),
        ([[0.0, 1.5]], "wave", r"u must be \(N, 2\) in \[-1, 1\]"),
        ([[0.0, math.nan]], "wave", r"u must be \(N, 2\)"),
        ([0.0, 0.0], "wave", r"u must be \(N, 2\)"),
    ],
)
def test_what_lies_off_the_square_has_no_class(u, boundary, message):
    with pytest.raises(ValueError, match=message):
        signed_distance(torch.tensor(u), boundary)


# ---------------------------------------------------------------- the data set


def test_samples_are_those_of_their_seed():
    data = load(n=300, seed=4, noise=0.2)
    assert {k: tuple(v.shape) for k, v in data.items()} == {
        "u": (300, 2),
        "x": (300, 50),
        "y": (300,),
        "distance": (300,),
    }
    assert all(torch.equal(a, b) for a, b in zip(data.values(), load(n=300, seed=4, noise=0.2).values()))
    assert not torch.equal(data["u"], load(n=300, seed=5)["u"])
    assert torch.equal(data["y"], (data["distance"] > 0).long())


def test_samples_lie_on_the_surface_unless_there_is_noise():
    clean, noisy = load(n=50, seed=1), load(n=50, seed=1, noise=0.2)
    assert torch.equal(clean["x"], Surface().embed(clean["u"])) and torch.equal(clean["u"], noisy["u"])
    assert (noisy["x"] - clean["x"]).std().item() == pytest.approx(0.2, rel=0.05)


def test_it_is_a_data_set_like_the_others():
    module = dataset("curved_plane")
    assert module is not None and module.prepare() is None
    assert list(curved_plane.checksums()) == ["data_prep/curved_plane.py"]
