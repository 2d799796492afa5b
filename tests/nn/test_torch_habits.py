"""Modules have torch's habits: names of parameters, state dicts, modes, indexing, printing, copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet import nn
from graphnet.errors import DescriptionError, DeviceError, InputError
from graphnet.sdk import FLOATING

F64 = torch.float64
COUNT = "1.0.num_batches_tracked"


def ours() -> nn.Sequential:
    conv = nn.Conv2d(2, 4, 3, padding=1)
    return nn.Sequential(
        conv, nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.Conv2d(4, 2, 1, bias=False), conv
    )


def torchs() -> torch.nn.Sequential:
    conv = torch.nn.Conv2d(2, 4, 3, padding=1)
    norm = torch.nn.BatchNorm2d(4)
    return torch.nn.Sequential(
        conv,
        torch.nn.Sequential(norm, torch.nn.ReLU()),
        torch.nn.Conv2d(4, 2, 1, bias=False),
        conv,
    )


def without_count(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the number of batches, which torch's norm counts and graphnet's does not."""
    return {name: tensor for name, tensor in named.items() if name != COUNT}


def shapes(named: Any) -> list[tuple[str, tuple[int, ...]]]:
    items = named.items() if isinstance(named, Mapping) else named
    return [(name, tuple(tensor.shape)) for name, tensor in items]


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert [*found] == [*expected]
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.detach()), name


def test_names_are_those_of_torch() -> None:
    mine, theirs = ours(), torchs()
    assert shapes(mine.named_parameters()) == shapes(theirs.named_parameters())
    assert shapes(mine.named_parameters("net")) == shapes(theirs.named_parameters("net"))
    assert shapes(mine.named_buffers()) == shapes(without_count(dict(theirs.named_buffers())))
    assert shapes(mine.state_dict()) == shapes(without_count(theirs.state_dict()))
    assert [*mine.state_dict(prefix="a.")] == [f"a.{name}" for name in mine.state_dict()]
    for method in ("named_modules", "named_children"):
        expected = [(n, type(m).__name__) for n, m in getattr(theirs, method)()]
        assert [(n, type(m).__name__) for n, m in getattr(mine, method)()] == expected
    for method in ("parameters", "modules", "children"):
        assert len(list(getattr(mine, method)())) == len(list(getattr(theirs, method)()))


def test_parameters_are_the_tensors_of_the_pairs_and_have_their_gradients() -> None:
    net = ours()[:3]
    net(torch.randn(2, 2, 5, 5))
    net.backward(torch.ones(2, 2, 5, 5))
    for (parameter, gradient), one in zip(net.param(), net.parameters(), strict=True):
        assert one is parameter
        assert one.grad is gradient
        assert not one.requires_grad
    assert net[0].weight.grad.abs().sum() > 0
    net.zero_grad()
    assert net[0].weight.grad.abs().sum() == 0


def test_optimizers_of_torch_and_clipping_work_on_the_parameters() -> None:
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Linear(3, 4, dtype=F64), nn.Tanh(), nn.Linear(4, 1, dtype=F64))
    theirs = torch.nn.Sequential(
        torch.nn.Linear(3, 4, dtype=F64), torch.nn.Tanh(), torch.nn.Linear(4, 1, dtype=F64)
    )
    mine.load_state_dict(theirs.state_dict())
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.1) for net in (mine, theirs)]
    for _ in range(4):
        x = torch.randn(5, 3, dtype=F64)
        for optimizer in optimizers:
            optimizer.zero_grad()  # sets `grad` to None
        mine.backward(torch.ones_like(mine(x)))
        theirs(x).sum().backward()
        for net in (mine, theirs):
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        for optimizer in optimizers:
            optimizer.step()
        assert mine.param()[0][1] is mine[0].weight.grad
    for found, expected in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)


def test_state_dict_holds_the_modules_own_tensors() -> None:
    net = ours()
    state = net.state_dict()
    state["0.weight"].fill_(2.0)
    assert net[0].weight.unique().tolist() == [2.0]
    assert state["3.weight"] is state["0.weight"]
    assert list(nn.Sequential().state_dict()) == []


def test_state_dicts_go_from_torch_to_graphnet_and_back() -> None:
    mine, theirs = ours(), torchs()
    x = torch.randn(3, 2, 6, 6)
    with torch.no_grad():
        theirs[:3](x)  # now the statistics of the norm are not those of the start
    assert mine.load_state_dict(theirs.state_dict(), strict=False) == ([], [COUNT])
    loaded = mine.load_state_dict(without_count(theirs.state_dict()))
    assert (loaded.missing_keys, loaded.unexpected_keys) == ([], [])
    assert repr(loaded) == repr(theirs.load_state_dict(theirs.state_dict()))
    same(mine.state_dict(), without_count(theirs.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(mine.eval()[:3](x), theirs.eval()[:3](x))
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(1.0)
    theirs.load_state_dict(mine.state_dict())
    same(mine.state_dict(), without_count(theirs.state_dict()))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("bias", [True, False])
def test_state_dicts_of_recurrent_modules_are_torchs(kind: str, bias: bool) -> None:
    theirs = getattr(torch.nn, kind)(3, 4, bias=bias, batch_first=True)
    mine = getattr(nn, kind)(3, 4, bias=bias, batch_first=True)
    assert mine.load_state_dict(theirs.state_dict()) == ([], [])
    x = torch.randn(2, 5, 3)
    torch.testing.assert_close(mine(x), theirs(x)[0].detach(), rtol=1e-5, atol=1e-6)
    other = getattr(torch.nn, kind)(3, 4, bias=bias, batch_first=True)
    assert other.load_state_dict(mine.state_dict()) == ([], [])
    assert torch.equal(other(x)[0], theirs(x)[0])


@pytest.mark.parametrize("remove", [(), ("2.weight",), ("0.weight", "1.0.running_mean")])
@pytest.mark.parametrize("add", [(), ("2.bias",), ("x", "1.0.y")])
def test_missing_and_unexpected_names_are_those_of_torch(
    remove: tuple[str, ...], add: tuple[str, ...]
) -> None:
    mine, theirs = ours(), torchs()
    state = without_count(torchs().state_dict())
    for name in remove:
        del state[name]
    state |= {name: torch.zeros(2) for name in add}
    kept = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    expected = theirs.load_state_dict(state, strict=False)
    missing = [name for name in expected.missing_keys if name != COUNT]
    if remove or add:
        with pytest.raises(InputError, match="nothing was loaded") as caught:
            mine.load_state_dict(state)
        for name in (*missing, *expected.unexpected_keys):
            assert repr(name) in str(caught.value)
        same(mine.state_dict(), kept)
    found = mine.load_state_dict(state, strict=False)
    assert found.missing_keys == missing
    assert found.unexpected_keys == list(expected.unexpected_keys)
    for name in set(state) & set(kept):
        if name not in ("0.weight", "0.bias") or not remove:
            assert torch.equal(mine.state_dict()[name], state[name])


def test_values_that_do_not_fit_are_refused_in_words_and_nothing_is_loaded() -> None:
    net = ours()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    good = {name: tensor + 1 for name, tensor in before.items()}
    bad = {
        "0.weight": torch.zeros(4, 2, 3),
        "0.bias": [0.0] * 4,
        "1.0.weight": torch.zeros(4, dtype=torch.complex64),
    }
    for strict in (True, False):
        with pytest.raises(InputError) as caught:
            net.load_state_dict({**good, **bad}, strict)  # type: ignore[dict-item]
        text = str(caught.value)
        assert "'0.weight': expected the shape (4, 2, 3, 3), got (4, 2, 3)" in text
        assert "'0.bias': expected a tensor of real numbers, got a list" in text
        assert "'1.0.weight': expected a tensor of real numbers, got torch.complex64" in text
        same(net.state_dict(), before)
    with pytest.raises(InputError, match="'2.wieght' is unexpected. Did you mean '2.weight'"):
        net.load_state_dict({**good, "2.wieght": torch.zeros(1)})
    with pytest.raises(InputError, match="expected a mapping from names to tensors, got a list"):
        net.load_state_dict([torch.zeros(1)])  # type: ignore[arg-type]


def test_a_state_dict_of_parameters_that_do_not_exist_yet_says_so() -> None:
    for module in (nn.DepthwiseConv2d(3), nn.Sequential(nn.ReLU(), nn.LayerScale())):
        for ask in (
            module.state_dict,
            module.param,
            lambda m=module: list(m.parameters()),
            lambda m=module: m.load_state_dict({}),
        ):
            with pytest.raises(InputError, match="no parameters yet: .* Call it once"):
                ask()
        module(torch.zeros(1, 2, 4, 4))
        assert module.state_dict()


# -- modes --------------------------------------------------------------------------------------------


def test_train_and_eval_reach_all_modules_and_return_the_module() -> None:
    net = ours()
    assert all(module.training for module in net.modules())
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    assert net.train() is net
    assert net.train(False) is net
    assert not net[1][0].training
    assert net[1].train()[0].training
    with pytest.raises(InputError, match="expected True or False, got 1"):
        net.train(1)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [lambda lib: lib.BatchNorm2d(3), lambda lib: lib.Dropout(0.5)])
def test_forward_in_evaluation_mode_is_that_of_torch_and_changes_no_state(make: Any) -> None:
    mine, theirs = make(nn), make(torch.nn)
    for _ in range(2):
        x = torch.randn(4, 3, 5, 5)
        mine(x), theirs(x)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(mine.eval()(x), theirs.eval()(x).detach())
    torch.testing.assert_close(mine(x), mine.predict(x))
    same(mine.state_dict(), before)


def test_backward_after_a_forward_in_evaluation_mode_says_why_it_cannot() -> None:
    conv, norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
    net = nn.Sequential(conv, norm)
    x = torch.randn(2, 2, 3, 3)
    for frozen in (net, norm):
        net.train()
        frozen.eval()
        y = net(x)
        with pytest.raises(
            InputError,
            match=r"^BatchNorm2d\(num_features=2\): it was in evaluation mode.*train\(\)",
        ):
            net.backward(torch.ones_like(y))
    assert net._context == [net._context[0], net._context[1]]
    net.eval()(x)
    kept = [context.named for context in net._context]
    assert kept == [{}, {}]
    net.train()(x)
    assert net.backward(torch.ones_like(y)).shape == x.shape


# -- containers ---------------------------------------------------------------------------------------


def test_sequential_is_indexed_sliced_counted_and_walked_as_torchs() -> None:
    mine, theirs = ours(), torchs()
    modules = list(mine)
    assert len(mine) == len(theirs) == len(modules) == 4
    for index in (0, 1, 3, -1, -4):
        assert mine[index] is modules[index]
    for part in (slice(1, 3), slice(None), slice(-2, None), slice(None, None, 2), slice(9, 9)):
        found = mine[part]
        assert isinstance(found, nn.Sequential)
        assert list(found) == modules[part]
        assert list(found.state_dict()) == list(without_count(theirs[part].state_dict()))
    for wrong in (4, -5, "0", None, 1.0):
        with pytest.raises(IndexError, match="expected an index from -4 to 3 or a slice, got"):
            mine[wrong]  # type: ignore[call-overload]
    with pytest.raises(IndexError, match="there is none"):
        nn.Sequential()[0]


def test_sequential_takes_names_and_modules_are_attributes() -> None:
    parts = {"encoder": nn.Conv2d(2, 3, 1), "act": nn.ReLU()}
    net = nn.Sequential(parts)
    theirs = torch.nn.Sequential()
    theirs.add_module("encoder", torch.nn.Conv2d(2, 3, 1))
    theirs.add_module("act", torch.nn.ReLU())
    assert shapes(net.state_dict()) == shapes(theirs.state_dict())
    assert net.encoder is parts["encoder"]
    assert net.encoder.kernel_size == (1, 1)
    with pytest.raises(AttributeError, match="Sequential has no attribute 'decoder'"):
        net.decoder
    with pytest.raises(InputError, match="'act' cannot be replaced"):
        net.act = nn.Sigmoid()
    net.note = "kept"
    assert net.note == "kept"
    for wrong in (torch.nn.ReLU(), nn.ReLU, nn.ReLU().layer, None):
        with pytest.raises(InputError, match="Sequential: '1': expected a module of graphnet.nn"):
            nn.Sequential(nn.ReLU(), wrong)


def test_fields_are_attributes_that_cannot_be_set() -> None:
    conv = nn.Conv2d(2, 3, (3, 1), stride=2)
    theirs = torch.nn.Conv2d(2, 3, (3, 1), stride=2)
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups"):
        assert getattr(conv, name) == getattr(theirs, name)
    with pytest.raises(InputError, match="stride cannot be set.* with stride=3"):
        conv.stride = 3


def test_modules_print_as_nested_lines_with_the_fields_that_differ_from_defaults() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.Sequential(nn.BatchNorm2d(8, eps=1e-3), nn.ReLU()),
        nn.Sequential(),
    )
    assert str(net) == (
        "Sequential(\n"
        "  (0): Conv2d(in_channels=3, out_channels=8, kernel_size=(3, 3), padding=(1, 1), bias=False)\n"
        "  (1): Sequential(\n"
        "    (0): BatchNorm2d(num_features=8, eps=0.001)\n"
        "    (1): ReLU()\n"
        "  )\n"
        "  (2): Sequential()\n"
        ")"
    )
    theirs = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Sequential(torch.nn.Tanh()))
    assert str(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh()))) == str(theirs)


# -- copies -------------------------------------------------------------------------------------------


def copied(module: Any, how: str) -> Any:
    return copy.deepcopy(module) if how == "deepcopy" else pickle.loads(pickle.dumps(module))


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("when", ["new", "after forward", "after backward", "eval", "moved"])
def test_modules_are_copied_at_any_time(how: str, when: str) -> None:
    net = ours()[:3]
    x = torch.randn(2, 2, 4, 4)
    if when == "eval":
        net.eval()
    if when != "new":
        net(x)
    if when == "after backward":
        net.backward(torch.ones(2, 2, 4, 4))
    if when == "moved":
        net.double()
        x = x.double()
    other = copied(net, how)
    assert str(other) == str(net)
    assert type(other[0]) is nn.Conv2d
    assert other.training == net.training
    same(other.state_dict(), net.state_dict())
    for (parameter, gradient), (kept, its) in zip(other.param(), net.param(), strict=True):
        assert torch.equal(gradient, its)
        assert parameter.grad is gradient
        assert parameter.data_ptr() != kept.data_ptr()
        assert gradient.data_ptr() != its.data_ptr()
    with pytest.raises(InputError, match="call forward before backward"):
        other.backward(torch.ones(2, 2, 4, 4))
    before = net[0].weight.clone()
    other[0].weight.add_(1.0)
    assert torch.equal(net[0].weight, before)
    other.train()(x)
    assert other.backward(torch.ones_like(x)).shape == x.shape


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_keep_what_is_shared(how: str) -> None:
    net = ours()
    optimizer = nn.SGD(net.param(), lr=0.1, momentum=0.9)
    tied = nn.Linear(3, 3)
    tied.tie(first := nn.Linear(3, 3))
    other, steps, pair = copied((net, optimizer, nn.Sequential(first, tied)), how)
    assert other[3] is other[0]
    assert len(other.param()) == len(net.param())
    assert all(
        a[0] is b[0] and a[1] is b[1] for a, b in zip(other.param(), steps.pairs, strict=True)
    )
    assert pair[0].weight is pair[1].weight
    assert len(pair.param()) == 2


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_of_random_modules_draw_what_the_original_draws(how: str) -> None:
    x = torch.ones(1, 1, 32, 32)
    net = nn.Sequential(nn.Dropout(0.5, generator=torch.Generator().manual_seed(5)))
    net(x)
    other = copied(net, how)
    assert torch.equal(net(x), other(x))


def test_modules_that_are_not_made_yet_are_copied_and_made_by_their_forward() -> None:
    for how in ("deepcopy", "pickle"):
        module = copied(nn.DepthwiseConv2d(3), how)
        assert module(torch.ones(1, 2, 4, 4)).shape == (1, 2, 2, 2)
        assert module.weight.shape == (2, 1, 3, 3)


def test_tied_modules_have_one_set_of_parameters() -> None:
    a, b = nn.Linear(3, 3, dtype=F64), nn.Linear(3, 3, dtype=F64)
    b.tie(a)
    net = nn.Sequential(a, nn.Tanh(), b)
    x = torch.randn(4, 3, dtype=F64, requires_grad=True)
    leaves = [parameter.clone().requires_grad_() for parameter in net.parameters()]
    assert len(leaves) == 2
    y = torch.nn.functional.linear(torch.nn.functional.linear(x, *leaves).tanh(), *leaves)
    grads = torch.autograd.grad(y.sum(), [x, *leaves])
    net(x.detach())
    torch.testing.assert_close(net.backward(torch.ones_like(y)), grads[0])
    for parameter, expected in zip(net.parameters(), grads[1:], strict=True):
        torch.testing.assert_close(parameter.grad, expected)
    with pytest.raises(InputError, match="cannot be tied to .* other names, shapes or dtypes"):
        nn.Linear(3, 4).tie(a)
    with pytest.raises(InputError, match="no parameters yet"):
        nn.LayerScale().tie(a)


def test_modules_that_are_made_in_inference_mode_train_outside_of_it() -> None:
    with torch.inference_mode():
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2)).double()[:1]
        optimizer = nn.SGD(net.parameters(), lr=0.5, momentum=0.9)
        net.backward(torch.ones_like(net(torch.ones(1, 2, dtype=F64))))
        optimizer.step()
    before = net[0].bias.clone()
    optimizer.zero_grad()
    net.backward(torch.ones_like(net(torch.ones(1, 2, dtype=F64))))
    optimizer.step()
    torch.testing.assert_close(net[0].bias, before - 0.5 * 1.9)


class OwnForward(nn.Module):
    """A module as one writes it in torch."""

    def __init__(self) -> None:
        super().__init__()


def test_a_module_without_a_layer_says_what_to_use() -> None:
    with pytest.raises(InputError, match="OwnForward: expected a layer, found none. .* nn.Network"):
        OwnForward()
    with pytest.raises(InputError, match="Module: expected a layer, found 'relu'.* nn.make"):
        nn.Module("relu")  # type: ignore[arg-type]


def test_a_subclass_of_sequential_is_one() -> None:
    class Net(nn.Sequential):
        def __init__(self, width: int) -> None:
            super().__init__(nn.Linear(2, width), nn.ReLU())
            self.width = width

    net = copy.deepcopy(Net(3))
    assert net.width == 3
    assert str(net).startswith("Net(\n  (0): Linear(in_features=2, out_features=3)")
    assert type(net[:1]) is nn.Sequential
    assert net(torch.ones(1, 2)).shape == (1, 3)


@pytest.mark.parametrize("found", [[1.0], 1.0, "x"])
def test_gradients_that_are_no_tensors_are_refused(found: object) -> None:
    module = nn.ReLU()
    module(torch.ones(1))
    with pytest.raises(InputError, match="ReLU.backward: input 0: expected a tensor, got a"):
        module.backward(found)  # type: ignore[arg-type]


def test_dtypes_of_modules_are_those_of_floating_point() -> None:
    for dtype in FLOATING:
        assert next(nn.Linear(2, 2, dtype=dtype).parameters()).dtype == dtype


def test_device_0_is_the_first_gpu_and_never_the_cpu() -> None:
    if torch.cuda.is_available():
        assert nn.Linear(2, 3, device=0).weight.device == torch.device("cuda", 0)
        return
    with pytest.raises(DeviceError, match="this machine has no CUDA devices"):
        nn.Linear(2, 3, device=0)


def test_an_optimizer_uses_an_assigned_gradient_and_skips_one_that_is_none() -> None:
    layer = nn.Linear(4, 3)
    optimizer = nn.SGD(layer.parameters(), lr=1.0, momentum=0.9)
    layer(torch.rand(2, 4))
    layer.backward(torch.ones(2, 3))
    gradient, before = layer.weight.grad.clone(), layer.weight.clone()
    layer.weight.grad = 10 * gradient
    layer.bias.grad = None
    bias = layer.bias.clone()
    optimizer.step()
    torch.testing.assert_close(layer.weight, before - 10 * gradient)
    assert torch.equal(layer.bias, bias)
    assert layer.bias.grad is None
    optimizer.zero_grad()
    assert not layer.weight.grad.any()


def test_a_wrong_field_names_its_class_and_a_missing_class_says_what_to_use() -> None:
    with pytest.raises(DescriptionError, match=r"Conv2d\.kernel_size: must be given"):
        nn.Conv2d(3, 8)
    with pytest.raises(AttributeError, match="no 'Upsample'. Use NearestUpsampling or"):
        _ = nn.Upsample
