"""The networks of Table 1 have the parameter counts of the paper and differ only in their blocks."""

import pytest
import torch
from torch.func import functional_call, jvp, vjp, vmap

from neuralode.nn import MODELS, ConvField, ODENet, ResNet


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("odenet", 208_266), ("rknet", 208_266), ("resnet", 576_778), ("resnet1", 206_858), ("noblock", 132_874)],
)
def test_parameter_counts_equal_those_of_the_paper(name, parameters):
    assert count(MODELS[name]()) == parameters


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("size", "downsample"), [(28, 2), (8, 1)])
def test_both_image_sizes_give_logits_and_gradients_for_every_parameter(name, size, downsample):
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


def test_solver_settings_are_keywords_of_the_net():
    net = ODENet(channels=8, method="rk4", step_size=0.25, gradient="adjoint")
    net(torch.rand(1, 1, 28, 28)).sum().backward()
    assert net.ode.stats.accepted.max() == 4


def test_the_field_depends_on_time():
    field, y = ConvField(8), torch.rand(2, 8, 3, 3)
    assert not torch.equal(field(torch.tensor(0.0), y), field(torch.tensor(1.0), y))


def test_the_field_takes_one_time_per_image():
    field, y = ConvField(8), torch.rand(2, 8, 3, 3)
    together = field(torch.tensor([0.2, 0.9]), y)
    alone = torch.cat([field(torch.tensor(0.2), y[:1]), field(torch.tensor(0.9), y[1:])])
    torch.testing.assert_close(together, alone)


def as_written_in_the_paper(field: ConvField, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The field with the time concatenated as a first channel."""

    def with_time(conv, y):
        return conv(torch.cat([t.reshape(-1, 1, 1, 1).expand(len(y), 1, *y.shape[2:]), y], dim=1))

    y = with_time(field.conv1, torch.relu(field.norm1(y)))
    y = with_time(field.conv2, torch.relu(field.norm2(y)))
    return field.norm3(y)


TIMES = [torch.tensor(-0.7), torch.tensor([0.2, 0.9, 3.0])]


@pytest.mark.parametrize("t", TIMES, ids=["one time", "one per image"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(6, 6), (5, 2), (1, 1)])
def test_the_field_equals_the_one_with_a_time_channel(t, dtype, memory_format, size):
    field = ConvField(8).to(dtype)
    y = torch.randn(3, 8, *size, dtype=dtype).to(memory_format=memory_format)
    found = field(t.to(dtype), y)
    assert found.dtype == dtype
    torch.testing.assert_close(found, as_written_in_the_paper(field, t.to(dtype), y))


@pytest.mark.parametrize("t", TIMES, ids=["one time", "one per image"])
def test_the_field_has_the_derivatives_of_the_one_with_a_time_channel(t):
    field, y = ConvField(8).double(), torch.randn(3, 8, 4, 4, dtype=torch.float64, requires_grad=True)
    t, weights = t.double().requires_grad_(), torch.randn(3, 8, 4, 4, dtype=torch.float64)
    inputs = [t, y, *field.parameters()]
    first, second = (
        torch.autograd.grad((f(t, y) * weights).sum(), inputs, create_graph=True)
        for f in (field, lambda t, y: as_written_in_the_paper(field, t, y))
    )
    for ours, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(ours, theirs)
    again, back = (
        torch.autograd.grad(torch.stack([g.square().sum() for g in grads]).sum(), inputs, allow_unused=True)
        for grads in (first, second)
    )
    for ours, theirs in zip(again, back, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_channels_last_maps_stay_channels_last():
    y = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    assert ConvField(8)(torch.tensor(0.5), y).is_contiguous(memory_format=torch.channels_last)


def test_torch_func_transforms_the_field():
    field, t, y = ConvField(8).double(), torch.tensor(0.3).double(), torch.randn(2, 8, 4, 4).double()
    direction = torch.randn_like(y)
    _, product = vjp(lambda y: field(t, y), y)
    _, tangent = jvp(lambda y: field(t, y), (y,), (direction,))
    torch.testing.assert_close((product(tangent)[0] * direction).sum(), tangent.square().sum())

    ys, ts = torch.randn(3, 2, 8, 4, 4).double(), torch.tensor([0.1, 0.5, 0.9]).double()
    torch.testing.assert_close(vmap(field)(ts, ys), torch.stack([field(t, y) for t, y in zip(ts, ys, strict=True)]))
    torch.testing.assert_close(vmap(lambda t: field(t, y))(ts), torch.stack([field(t, y) for t in ts]))
    stacked = {name: torch.stack([p, 2 * p]) for name, p in field.named_parameters()}
    two = vmap(lambda parameters: functional_call(field, parameters, (t, y)))(stacked)
    torch.testing.assert_close(two[0], field(t, y))


def test_the_net_trains_under_autocast():
    net = ODENet(channels=32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(net(torch.rand(2, 1, 28, 28)), torch.tensor([3, 7]))
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_the_net_runs_with_a_step_size_per_image():
    net = ODENet(channels=8, downsample=1, per_sample=True)
    net(torch.rand(3, 1, 8, 8)).sum().backward()
    assert net.ode.stats.evaluations.shape == (3,)
