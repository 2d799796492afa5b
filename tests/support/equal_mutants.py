"""Mutants that are not wrong, each with the reason: they are set aside.

A mutant stands here if it computes the same, or if it promises less than the original and keeps that.
"""

from __future__ import annotations

_AT_KINK = "at the kink itself, the derivatives of both sides are right"
_SPLITS = "an axis that is split into two is a view for all strides, so view does what reshape does"
_FRESH = "the tensor was just computed and is contiguous, so view does what reshape does"
_WIDER = "a window may be wider than what is read: it costs time only"
_COPY = "only whether a copy is made changes, not a number"
_OWN = "it is what the kernel's forward returned, which is contiguous"
_BOTH = "weight and bias are both there or both absent"

EQUAL: dict[str, str] = {
    "kernels.aten.convolution:dense: return x if x.stride() == (h * w * c, 1, w * c, c) else "
    "x.contiguous() -> return x if x.stride() == (w * c, 1, w * c, c) else x.contiguous()": _COPY,
    "kernels.aten.convolution:dense: return x if x.stride() == (h * w * c, 1, w * c, c) else "
    "x.contiguous() -> return x if x.stride() == (h * w * c, 2, w * c, c) else x.contiguous()": _COPY,
    "kernels.aten.norm:_in_order: return dense(x) if x.device.type == 'cpu' else x.contiguous() -> "
    "return dense(x) if x.device.type != 'cpu' else x.contiguous()": _COPY,
    "kernels.patch.products:_TransposeConvolution.gradients: mask = None if mask is None else "
    "mask.reshape(-1, w.shape[1]) -> mask = None if mask is None else mask.view(-1, w.shape[1])": _OWN,
    "layers.activation:LeakyReLU.forward: return x.where(x > 0, x * self.negative_slope) -> "
    "return x.where(x >= 0, x * self.negative_slope)": "at 0 both are 0",
    "layers.adaptive:AdaptiveMaxPooling.backward: numbers = part.reshape(there) -> "
    "numbers = part.view(there)": _SPLITS,
    "layers.adaptive:AdaptiveMaxPooling.forward: kept.append(taken.reshape(n, math.prod(taken.shape[1:]))) "
    "-> kept.append(taken.view(n, math.prod(taken.shape[1:])))": _FRESH,
    "layers.adaptive:AdaptiveMaxPooling.forward: taken = torch.zeros_like(y, dtype=dtype, "
    "memory_format=torch.contiguous_format) -> taken = torch.zeros_like(y, "
    "memory_format=torch.contiguous_format)": "the same numbers are kept, in more bytes",
    "layers.axes:Flatten.backward: return grad_y.reshape(specs['x'].shape) -> "
    "return grad_y.view(specs['x'].shape)": _SPLITS,
    "layers.recurrent:LSTM.forward: if bias_ih_l0 is not None and bias_hh_l0 is not None: -> "
    "if bias_ih_l0 is not None or bias_hh_l0 is not None:": _BOTH,
    "layers.activation:PReLU.backward: grad_x = grad_y.where(x > 0, grad_y * slopes) -> "
    "grad_x = grad_y.where(x >= 0, grad_y * slopes)": _AT_KINK,
    "layers.activation:beside: return weight.view(-1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else "
    "weight.view((1,) * x.ndim) -> return weight.view(-1, *(1,) * (x.ndim - 2)) if x.ndim >= 1 else "
    "weight.view((1,) * x.ndim)": "for one axis both give the shape (1,)",
    "layers.attention:TransposedAttention.forward: return (y.reshape(n, channels // 3, h, w), cosine, "
    "attention, norms) -> return (y.view(n, channels // 3, h, w), cosine, attention, norms)": _FRESH,
    "layers.transpose_conv:TransposeConvolution.window: first, last = (rows.start + self.padding[axis], "
    "rows.stop - 1 + self.padding[axis]) -> first, last = (rows.start + self.padding[axis], rows.stop + "
    "self.padding[axis])": _WIDER,
    "layers.dropout:Dropout.mask: return random.uniform(key, x.shape) >= self.p -> "
    "return random.uniform(key, x.shape) > self.p": "no number that is drawn is p itself, but for one in "
    "sixteen million",
    "layers.group_norm:GroupedNorm.forward: if weight is not None and bias is not None: -> "
    "if bias is not None:": _BOTH,
    "layers.group_norm:GroupedNorm.forward: if weight is not None and bias is not None: -> "
    "if weight is not None:": _BOTH,
    "layers.group_norm:GroupedNorm.backward: return (grad_x, *affine_gradients(grad_y, z.reshape(x.shape), "
    "wanted)) -> return (grad_x, *affine_gradients(grad_y, z.view(x.shape), wanted))": _FRESH,
    "layers.pixels:PixelShuffle.window: return range(rows.start // self.upscale_factor, (rows.stop - 1) // "
    "self.upscale_factor + 1) -> return range(rows.start // self.upscale_factor, (rows.stop + 1) // "
    "self.upscale_factor + 1)": _WIDER,
    "layers.pixels:shuffle: moved = x.reshape(n, c, r, r, h, w).permute(0, 1, 4, 2, 5, 3) -> "
    "moved = x.view(n, c, r, r, h, w).permute(0, 1, 4, 2, 5, 3)": _SPLITS,
    "layers.pixels:unshuffle: moved = x.reshape(n, c, h, r, w, r).permute(0, 1, 3, 5, 2, 4) -> "
    "moved = x.view(n, c, h, r, w, r).permute(0, 1, 3, 5, 2, 4)": _SPLITS,
    "layers.upsample:NearestInterpolation.backward: blocks = grad_y.reshape(n, c, *(side for pair in pairs "
    "for side in pair)) -> blocks = grad_y.view(n, c, *(side for pair in pairs for side in pair))": _SPLITS,
    "layers.upsample:NearestInterpolation.forward: spaced = x.reshape(n, c, *(side for size in sizes for "
    "side in (size, 1))) -> spaced = x.view(n, c, *(side for size in sizes for side in (size, 1)))": _SPLITS,
}
