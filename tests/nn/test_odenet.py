"""The networks of Table 1 are the paper's, and differ in their middle only."""

import pytest
import torch

from neuralode.nn import MODELS, ConvField, ODENet, ResNet


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("odenet", 208_266), ("rknet", 208_266), ("resnet", 576_778), ("resnet1", 206_858), ("noblock", 132_874)],
)
def test_parameters_are_as_many_as_in_the_paper(name, parameters):
    assert count(MODELS[name]()) == parameters


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("size", "downsample"), [(28, 2), (8, 1)])
def test_images_of_both_sizes_become_logits_and_every_parameter_learns(name, size, downsample):
    model = MODELS[name](downsample=downsample, channels=32)
    logits = model(torch.rand(2, 1, size, size))
    assert logits.shape == (2, 10)
    torch.nn.functional.cross_entropy(logits, torch.tensor([3, 7])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_stem_and_head_are_the_same_in_all():
    shared = {name: p.shape for name, p in ResNet(0).named_parameters()}
    for make in MODELS.values():
        shapes = {name: p.shape for name, p in make().named_parameters()}
        assert shared.items() <= shapes.items()


def test_the_rknet_is_the_odenet_differentiated_through_its_solver():
    odenet, rknet = ODENet(channels=8), MODELS["rknet"](channels=8)
    assert list(odenet.state_dict()) == list(rknet.state_dict())
    assert (odenet.ode.gradient, rknet.ode.gradient) == ("replay", "direct")


def test_the_solver_is_chosen_where_the_net_is_built():
    net = ODENet(channels=8, method="rk4", step_size=0.25, gradient="adjoint")
    net(torch.rand(1, 1, 28, 28)).sum().backward()
    assert net.ode.stats.accepted.max() == 4


def test_the_field_sees_the_time():
    field, y = ConvField(8), torch.rand(2, 8, 3, 3)
    assert not torch.equal(field(torch.tensor(0.0), y), field(torch.tensor(1.0), y))


def test_the_field_takes_one_time_per_image():
    field, y = ConvField(8), torch.rand(2, 8, 3, 3)
    together = field(torch.tensor([0.2, 0.9]), y)
    alone = torch.cat([field(torch.tensor(0.2), y[:1]), field(torch.tensor(0.9), y[1:])])
    torch.testing.assert_close(together, alone)


def test_the_net_runs_with_a_step_size_per_image():
    net = ODENet(channels=8, downsample=1, per_sample=True)
    net(torch.rand(3, 1, 8, 8)).sum().backward()
    assert net.ode.stats.evaluations.shape == (3,)
