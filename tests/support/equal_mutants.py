"""Mutants that are not wrong, each with the reason: they are set aside.

A mutant stands here if it computes the same, or if it promises less than the original and keeps that.
"""

from __future__ import annotations

_NAMES: dict[str, tuple[str, ...]] = {
    "a border of width 0 is added on no side, and folded back to the same image": (
        "kernels.aten.convolution:AtenCorrelation.backward: if grad_x is not None and "
        "self.border: -> if grad_x is not None:",
    ),
    "all steps have the same shape": (
        "layers.recurrent:GRU.backward: zeros = torch.zeros_like(grad_y[:, 0]) -> zeros = "
        "torch.zeros_like(grad_y[:, -1])",
    ),
    "a weaker promise: the whole image may be read": (
        "layers.merge:Concat.window: return rows if self.dim in (0, 1) else None -> return "
        "rows if self.dim in (1, 1) else None",
        "layers.merge:Concat.window: return rows if self.dim in (0, 1) else None -> return "
        "rows if self.dim in (0, 0) else None",
    ),
    "the numbers have the same order in memory, and get another shape in the same statement": (
        "layers.attention:TransposedAttention.backward: return (torch.stack((grad_q, grad_k, "
        "grad_v), 1).reshape(qkv.shape), grad_temperature) -> return (torch.cat((grad_q, "
        "grad_k, grad_v), 1).reshape(qkv.shape), grad_temperature)",
    ),
    "parameters are contiguous, so view does what reshape does": (
        "kernels.aten.sequence:FusedRMSNorm.forward: y.mul_(weight.reshape(-1)) -> "
        "y.mul_(weight.view(-1))",
        "kernels.aten.sequence:FusedRMSNorm.backward: scale = weight.reshape(-1) -> scale = "
        "weight.view(-1)",
    ),
    "y and x have the same sign, as the slope is not negative": (
        "kernels.aten.activation:AtenLeakyReLU.backward: grad: Tensor = "
        "_aten.leaky_relu_backward.default(grad_y, y, self.negative_slope, True) -> grad: "
        "Tensor = _aten.leaky_relu_backward.default(grad_y, y, self.negative_slope, False)",
    ),
    "a signal is one row: no window starts at another, whatever the step to it": (
        "kernels.aten.pool:_MaxPool._arguments: return (self.sizes(self.kernel_size, 1), "
        "self.sizes(self.stride, 1), self.sizes(self.padding, 0), self.sizes(self.dilation, "
        "1), self.ceil_mode) -> return (self.sizes(self.kernel_size, 1), "
        "self.sizes(self.stride, 2), self.sizes(self.padding, 0), self.sizes(self.dilation, "
        "1), self.ceil_mode)",
    ),
    "a window may be wider than what is read: it costs time only": (
        "layers.pool:Pooling.window: return range(read.start - pad, read.stop - pad) -> return"
        " range(read.start - pad, read.stop + pad)",
        "layers.pixels:PixelShuffle.window: return range(rows.start // self.upscale_factor, "
        "(rows.stop - 1) // self.upscale_factor + 1) -> return range(rows.start // "
        "self.upscale_factor, (rows.stop + 1) // self.upscale_factor + 1)",
        "layers.pixels:PixelShuffle.window: return range(rows.start // self.upscale_factor, "
        "(rows.stop - 1) // self.upscale_factor + 1) -> return range(rows.start // "
        "self.upscale_factor, (rows.stop - 1) * self.upscale_factor + 1)",
        "layers.pixels:PixelShuffle.window: return range(rows.start // self.upscale_factor, "
        "(rows.stop - 1) // self.upscale_factor + 1) -> return range(rows.start // "
        "self.upscale_factor, (rows.stop - 1) // self.upscale_factor + 2)",
        "layers.transpose_conv:TransposeConvolution.window: first, last = (rows.start + "
        "self.padding[axis], rows.stop - 1 + self.padding[axis]) -> first, last = (rows.start "
        "+ self.padding[axis], rows.stop + self.padding[axis])",
        "layers.transpose_conv:TransposeConvolution.window: return range(-((reach - first) // "
        "stride), last // stride + 1) -> return range(-stride, last // stride + 1)",
        "layers.transpose_conv:TransposeConvolution.window: stride, reach = "
        "(self.stride[axis], self.windows.spans[axis] - 1) -> stride, reach = "
        "(self.stride[axis], self.windows.spans[axis] + 1)",
        "layers.upsample:NearestInterpolation.window: return range(rows.start // factor, "
        "(rows.stop - 1) // factor + 1) -> return range(rows.start // factor, (rows.stop - 1) "
        "// factor + 2)",
    ),
    "all scales have the same shape (N, C)": (
        "losses.ssim:MSSSIM.product: total = torch.ones_like(scores[0]) -> total = "
        "torch.ones_like(scores[-1])",
    ),
    "an axis that is split into two is a view for all strides, so view does what reshape does": (
        "layers.adaptive:AdaptiveMaxPooling.backward: numbers = part.reshape(there) -> numbers"
        " = part.view(there)",
        "layers.axes:Flatten.backward: return grad_y.reshape(specs['x'].shape) -> return "
        "grad_y.view(specs['x'].shape)",
        "layers.dot_attention:Attention.heads: return x.reshape(n, t, self.num_heads, features"
        " // self.num_heads).transpose(1, 2) -> return x.view(n, t, self.num_heads, features "
        "// self.num_heads).transpose(1, 2)",
        "layers.pixels:shuffle: moved = x.reshape(n, c, r, r, h, w).permute(0, 1, 4, 2, 5, 3) "
        "-> moved = x.view(n, c, r, r, h, w).permute(0, 1, 4, 2, 5, 3)",
        "layers.pixels:unshuffle: moved = x.reshape(n, c, h, r, w, r).permute(0, 1, 3, 5, 2, "
        "4) -> moved = x.view(n, c, h, r, w, r).permute(0, 1, 3, 5, 2, 4)",
        "layers.upsample:NearestInterpolation.backward: blocks = grad_y.reshape(n, c, *(side "
        "for pair in pairs for side in pair)) -> blocks = grad_y.view(n, c, *(side for pair in"
        " pairs for side in pair))",
        "layers.upsample:NearestInterpolation.forward: spaced = x.reshape(n, c, *(side for "
        "size in sizes for side in (size, 1))) -> spaced = x.view(n, c, *(side for size in "
        "sizes for side in (size, 1)))",
        "layers.windows:Windows.fold: parts = columns.reshape(n, channels, taps, "
        "*counts).unbind(2) -> parts = columns.view(n, channels, taps, *counts).unbind(2)",
    ),
    "at 0 both are 0": (
        "layers.activation:PReLU.forward: return x.where(x > 0, x * beside(weight, x)) -> "
        "return x.where(x >= 0, x * beside(weight, x))",
        "layers.activation:LeakyReLU.forward: return x.where(x > 0, x * self.negative_slope) "
        "-> return x.where(x >= 0, x * self.negative_slope)",
        "layers.activation:PReLU.backward: below = (grad_y * x).masked_fill(x > 0, 0) -> below"
        " = (grad_y * x).masked_fill(x >= 0, 0)",
        "layers.hard:ELU.forward: return x.where(x > 0, self.alpha * x.clamp_max(0).expm1()) "
        "-> return x.where(x >= 0, self.alpha * x.clamp_max(0).expm1())",
    ),
    "at 0 both are one half": (
        "layers.activation:Sigmoid.forward: return e.where(x < 0, 1) / (1 + e) -> return "
        "e.where(x <= 0, 1) / (1 + e)",
    ),
    "at the kink itself, the derivatives of both sides are right": (
        "layers.activation:PReLU.backward: grad_x = grad_y.where(x > 0, grad_y * slopes) -> "
        "grad_x = grad_y.where(x >= 0, grad_y * slopes)",
        "layers.attention:TransposedAttention.backward: along_q, along_k = "
        "radial.masked_fill(norms <= _LEAST_NORM, 0).to(q.dtype)[..., None].unbind(1) -> "
        "along_q, along_k = radial.masked_fill(norms < _LEAST_NORM, 0).to(q.dtype)[..., "
        "None].unbind(1)",
    ),
    "aten reads the shape of this memory only: its order decides the speed on a GPU, not a "
    "number": (
        "kernels.aten.pool:_Operators.outline: if order.is_contiguous() or order.ndim != 4: ->"
        " if order.is_contiguous() or order.ndim == 4:",
        "kernels.aten.pool:_Operators.outline: if order.is_contiguous() or order.ndim != 4: ->"
        " if order.is_contiguous():",
        "kernels.aten.pool:_Operators.outline: if order.is_contiguous() or order.ndim != 4: -> "
        "if order.is_contiguous() and order.ndim != 4:",
        "kernels.aten.pool:_Operators.outline: last = order.is_contiguous(memory_format="
        "torch.channels_last) -> last = order.is_contiguous()",
    ),
    "fewer kernels are selected: only `match` of kernels asks": (
        "layers.conv:Correlation.pads_zeros: return self.padding_mode == 'zeros' or not "
        "any(self.pads()) -> return self.padding_mode == 'zeros' and (not any(self.pads()))",
    ),
    "for one axis both give the shape (1,)": (
        "layers.activation:beside: return weight.view(-1, *(1,) * (x.ndim - 2)) if x.ndim > 1 "
        "else weight.view((1,) * x.ndim) -> return weight.view(-1, *(1,) * (x.ndim - 2)) if "
        "x.ndim >= 1 else weight.view((1,) * x.ndim)",
    ),
    "it is what the kernel's forward returned, which is contiguous": (
        "kernels.patch.products:_TransposeConvolution.gradients: mask = None if mask is None "
        "else mask.reshape(-1, w.shape[1]) -> mask = None if mask is None else mask.view(-1, "
        "w.shape[1])",
    ),
    "it only decides whether true is refused where an axis is expected": (
        "layers.axes:as_tuple: if isinstance(value, int) and (not isinstance(value, bool)): ->"
        " if isinstance(value, int):",
    ),
    "no number that is drawn is p itself, but for one in sixteen million": (
        "layers.dropout:Dropout.mask: return random.uniform(key, x.shape) >= self.p -> return "
        "random.uniform(key, x.shape) > self.p",
    ),
    "only whether a copy is made changes, not a number": (
        "kernels.aten.convolution:dense: return x if x.stride() == (h * w * c, 1, w * c, c) "
        "else x.contiguous() -> return x if x.stride() == (h * w * c, 2, w * c, c) else "
        "x.contiguous()",
        "kernels.aten.convolution:dense: return x if x.stride() == (h * w * c, 1, w * c, c) "
        "else x.contiguous() -> return x if x.stride() == (w * c, 1, w * c, c) else "
        "x.contiguous()",
        "kernels.aten.norm:_in_order: return dense(x) if x.device.type == 'cpu' else "
        "x.contiguous() -> return dense(x) if x.device.type != 'cpu' else x.contiguous()",
    ),
    "the further turns of the loop find no pixel in any window: they cost time only": (
        "layers.adaptive:_Axis.of: longest = max((-(-(j + 1) * n // m) - j * n // m for j in "
        "range(m))) -> longest = max((-(-(j + 1) * n * m) - j * n // m for j in range(m)))",
    ),
    "the mask of the last two axes is repeated for each batch and head, which broadcasting "
    "does anyway": (
        "layers.dot_attention:Attention.forward: seen = torch.ones(product.shape[2:], "
        "dtype=torch.bool, device=q.device).tril() -> seen = torch.ones(product.shape[:], "
        "dtype=torch.bool, device=q.device).tril()",
        "layers.dot_attention:Attention.forward: seen = torch.ones(product.shape[2:], "
        "dtype=torch.bool, device=q.device).tril() -> seen = torch.ones(product.shape, "
        "dtype=torch.bool, device=q.device).tril()",
    ),
    "the same numbers are kept, in more bytes": (
        "layers.pool:MaxPooling.forward: taken = torch.zeros_like(y, dtype=torch.uint8 if "
        "len(places) <= 256 else torch.int32) -> taken = torch.zeros_like(y, dtype=torch.uint8"
        " if len(places) < 256 else torch.int32)",
        "layers.adaptive:AdaptiveMaxPooling.forward: dtype = torch.uint8 if "
        "max((windows.longest for windows in axes)) <= 256 else torch.int32 -> dtype = "
        "torch.uint8 if max((windows.longest for windows in axes)) < 256 else torch.int32",
        "layers.adaptive:AdaptiveMaxPooling.forward: dtype = torch.uint8 if "
        "max((windows.longest for windows in axes)) <= 256 else torch.int32 -> dtype = "
        "torch.uint8 if max((windows.longest for windows in axes)) <= 255 else torch.int32",
        "layers.adaptive:AdaptiveMaxPooling.forward: return (x, torch.cat(kept, 1)) -> return "
        "(x, torch.cat(kept, 1).float())",
        "layers.adaptive:AdaptiveMaxPooling.forward: taken = torch.zeros_like(y, dtype=dtype, "
        "memory_format=torch.contiguous_format) -> taken = torch.zeros_like(y, "
        "memory_format=torch.contiguous_format)",
        "layers.pool:MaxPooling.forward: taken = torch.zeros_like(y, dtype=torch.uint8 if "
        "len(places) <= 256 else torch.int32) -> taken = torch.zeros_like(y)",
        "layers.pool:MaxPooling.forward: taken = torch.zeros_like(y, dtype=torch.uint8 if "
        "len(places) <= 256 else torch.int32) -> taken = torch.zeros_like(y, dtype=torch.uint8 if "
        "len(places) <= 255 else torch.int32)",
    ),
    "the tensor was just computed and is contiguous, so view does what reshape does": (
        "layers.adaptive:AdaptiveMaxPooling.forward: kept.append(taken.reshape(n, "
        "math.prod(taken.shape[1:]))) -> kept.append(taken.view(n, "
        "math.prod(taken.shape[1:])))",
        "layers.attention:TransposedAttention.forward: return (y.reshape(n, channels // 3, h, "
        "w), cosine, attention, norms) -> return (y.view(n, channels // 3, h, w), cosine, "
        "attention, norms)",
        "layers.group_norm:GroupedNorm.backward: return (grad_x, *affine_gradients(grad_y, "
        "z.reshape(x.shape), wanted)) -> return (grad_x, *affine_gradients(grad_y, "
        "z.view(x.shape), wanted))",
    ),
    "weight and bias are both there or both absent": (
        "layers.group_norm:GroupedNorm.forward: if weight is not None and bias is not None: ->"
        " if bias is not None:",
        "layers.group_norm:GroupedNorm.forward: if weight is not None and bias is not None: ->"
        " if weight is not None or bias is not None:",
        "layers.group_norm:GroupedNorm.forward: if weight is not None and bias is not None: ->"
        " if weight is not None:",
        "layers.norm:BatchNorm.forward: if weight is not None and bias is not None: -> if bias"
        " is not None:",
        "layers.norm:BatchNorm.forward: if weight is not None and bias is not None: -> if "
        "weight is not None or bias is not None:",
        "layers.norm:BatchNorm.forward: if weight is not None and bias is not None: -> if "
        "weight is not None:",
        "layers.recurrent:LSTM.forward: if bias_ih_l0 is not None and bias_hh_l0 is not None: "
        "-> if bias_ih_l0 is not None or bias_hh_l0 is not None:",
        "layers.recurrent:LSTM.forward: if bias_ih_l0 is not None and bias_hh_l0 is not None: "
        "-> if bias_ih is not None:",
    ),
    "what is refused stays the same: both must have one shape": (
        "losses.ssim:SSIM.forward: self.check(prediction, target) -> self.check(target, "
        "prediction)",
        "losses.ssim:MSSSIM.forward: self.check(prediction, target, scales=len(self.weights)) "
        "-> self.check(target, prediction, scales=len(self.weights))",
    ),
    "only the sum of both is read": (
        "losses.ssim:SimilarityLoss.compare: means = blur(torch.stack((x, y, x * x, y * y, x *"
        " y)), self.bell) -> means = blur(torch.stack((x, y, y * y, x * x, x * y)), self.bell)",
    ),
}
EQUAL: dict[str, str] = {name: reason for reason, names in _NAMES.items() for name in names}
"""The reason why a mutant is not wrong, by its name."""
