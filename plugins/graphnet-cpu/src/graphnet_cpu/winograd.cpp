// Convolution 3x3 with stride 1 by Winograd's minimal filtering F(4x4, 3x3): forward and gradients.
//
// Lavin & Gray 2016, "Fast algorithms for convolutional neural networks", eq. 11. For a tile of 4x4 outputs
//     y = A^T [ (G w G^T) * (B^T d B) ] A,    d the 6x6 inputs that it sees, * element by element.
// Summed over the input channels, the bracket is a matrix product for each of the 36 positions in it: 36
// multiplications where the definition has 144. The gradient of x is a convolution of that of y with turned
// kernels; that of w transposes the maps: dw = G^T [ sum over tiles of (B^T d B) * (A g A^T) ] G.
//
// Images are N H W C. A vector holds neighbouring channels of a pixel; the last one may be partly empty.
// A thread's tiles go in blocks that fit its cache. S is the type of images in memory, A the one of sums and maps,
// P the one in which products take their factors.

#include <omp.h>

#include "products.h"

namespace {

constexpr int64_t kPositions = 36;
constexpr int64_t kBlock = 24;          // tiles of a convolution: a multiple of the rows that a product takes at once
constexpr int64_t kGradientBlock = 48;  // tiles of the gradients
constexpr int64_t kRows = kSums / 3;    // of a gradient's product
constexpr int64_t kUnit = 4;            // tiles that are not shared among threads
constexpr int64_t kOwnBytes = 1 << 26;  // sums of all threads, if each has its own
const Share kAll(kPositions, kPositions, 0, 1);
enum Purpose { kWeights, kInputs, kGradients, kProducts, kGradientSums };

// From one of the 36 positions to the next, in rows of `columns`; the gap of a line keeps the positions out of
// each other's sets in the cache.
template <class A>
int64_t stride_of(int64_t rows, int64_t columns) {
    return rows * columns + 64 / sizeof(A);
}

// ---- the maps along one axis, and along both --------------------------------------------------------------

// The points are 0, +-a, +-b and infinity, with a^2 = 1/2 and b^2 = 2: results are about twice as exact as with the
// points 0, +-1, +-2 of the paper.
template <class A>
constexpr A kNear = A(0.70710678118654752440L);
template <class A>
constexpr A kFar = A(1.41421356237309504880L);

struct InputMap {  // B^T
    static constexpr int from = 6, to = 6;
    template <class A>
    static inline void apply(const V<A> d[6], V<A> v[6]) {
        const A half = A(1) / 2, sum = A(5) / 2;
        const V<A> even = d[4] - 2 * d[2], odd = kNear<A> * d[3] - kFar<A> * d[1];
        const V<A> even2 = d[4] - half * d[2], odd2 = kFar<A> * d[3] - kNear<A> * d[1];
        v[0] = (d[0] + d[4]) - sum * d[2];
        v[1] = even + odd;
        v[2] = even - odd;
        v[3] = even2 + odd2;
        v[4] = even2 - odd2;
        v[5] = (d[1] + d[5]) - sum * d[3];
    }
};

struct OutputMap {  // A^T
    static constexpr int from = 6, to = 4;
    template <class A>
    static inline void apply(const V<A> m[6], V<A> y[4]) {
        const A half = A(1) / 2;
        const V<A> sum = m[1] + m[2], difference = kNear<A> * (m[1] - m[2]);
        const V<A> sum2 = m[3] + m[4], difference2 = kFar<A> * (m[3] - m[4]);
        y[0] = m[0] + sum + sum2;
        y[1] = difference + difference2;
        y[2] = half * sum + 2 * sum2;
        y[3] = half * difference + 2 * difference2 + m[5];
    }
};

struct GradientMap {  // A
    static constexpr int from = 4, to = 6;
    template <class A>
    static inline void apply(const V<A> g[4], V<A> v[6]) {
        const A half = A(1) / 2;
        const V<A> even = g[0] + half * g[2], odd = kNear<A> * (g[1] + half * g[3]);
        const V<A> even2 = g[0] + 2 * g[2], odd2 = kFar<A> * (g[1] + 2 * g[3]);
        v[0] = g[0];
        v[1] = even + odd;
        v[2] = even - odd;
        v[3] = even2 + odd2;
        v[4] = even2 - odd2;
        v[5] = g[3];
    }
};

struct WeightMap {  // G
    static constexpr int from = 3, to = 6;
    template <class A>
    static inline void apply(const V<A> w[3], V<A> u[6]) {
        const A third = A(1) / 3, sixth = A(1) / 6;
        const V<A> even = (2 * w[0] + w[2]) * third, odd = w[1] * (2 * kNear<A> * third);
        const V<A> even2 = (w[0] + 2 * w[2]) * sixth, odd2 = w[1] * (kFar<A> * sixth);
        u[0] = w[0];
        u[1] = -(even + odd);
        u[2] = odd - even;
        u[3] = even2 + odd2;
        u[4] = even2 - odd2;
        u[5] = w[2];
    }
};

struct KernelMap {  // G^T
    static constexpr int from = 6, to = 3;
    template <class A>
    static inline void apply(const V<A> u[6], V<A> w[3]) {
        const A third = A(1) / 3, sixth = A(1) / 6;
        const V<A> sum = u[1] + u[2], sum2 = u[3] + u[4];
        w[0] = u[0] - 2 * third * sum + sixth * sum2;
        w[1] = 2 * kNear<A> * third * (u[2] - u[1]) + kFar<A> * sixth * (u[3] - u[4]);
        w[2] = third * (sum2 - sum) + u[5];
    }
};

// take(i, j) gives an element, put(i, j, x) gets one of the result.
template <class Map, class A, class Take, class Put>
inline void map_both(const Take& take, const Put& put) {
    V<A> half[Map::to][Map::from];
    for (int j = 0; j < Map::from; j++) {
        V<A> column[Map::from], made[Map::to];
        for (int i = 0; i < Map::from; i++) column[i] = take(i, j);
        Map::template apply<A>(column, made);
        for (int i = 0; i < Map::to; i++) half[i][j] = made[i];
    }
    for (int i = 0; i < Map::to; i++) {
        V<A> made[Map::to];
        Map::template apply<A>(half[i], made);
        for (int j = 0; j < Map::to; j++) put(i, j, made[j]);
    }
}

// ---- images and tiles -------------------------------------------------------------------------------------

struct Size {
    int64_t n, h, w, c;
};

struct Place {  // of a tile's first pixel
    int64_t n, y, x;
};

struct Tiles {  // an image in tiles of 4x4, numbered row by row, image by image
    int64_t rows, columns, count;
    explicit Tiles(const Size& size)
        : rows((size.h + 3) / 4), columns((size.w + 3) / 4), count(size.n * rows * columns) {}
    Place place(int64_t tile) const {
        const int64_t rest = tile % (rows * columns);
        return {tile / (rows * columns), rest / columns * 4, rest % columns * 4};
    }
};

template <class S, class M = S>
struct Image {  // its elements count as 0 where those of `mask`, if there is one, are not above 0
    const S* data;
    const M* mask;
    Size size;
};

// The K x K pixels from (y, x) on, one vector of their channels; zero outside the image.
template <int K, class A, class S, class M>
inline void window(const Image<S, M>& image, const Place& at, int64_t c, V<A> d[K][K]) {
    const Size& size = image.size;
    const int64_t start = ((at.n * size.h + at.y) * size.w + at.x) * size.c + c, left = size.c - c;
    const auto pixel = [&](const auto* data, int i, int j) { return load(data + start + (i * size.w + j) * size.c); };
    const bool inside = at.y >= 0 && at.x >= 0 && at.y + K <= size.h && at.x + K <= size.w;
    if (inside && left >= Vector<A>::lanes) {
        for (int i = 0; i < K; i++)
            for (int j = 0; j < K; j++) d[i][j] = pixel(image.data, i, j);
        if (image.mask)
            for (int i = 0; i < K; i++)
                for (int j = 0; j < K; j++) d[i][j] = pixel(image.mask, i, j) <= 0 ? V<A>{} : d[i][j];
        return;
    }
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) {
            const int64_t y = at.y + i, x = at.x + j, offset = start + (i * size.w + j) * size.c;
            d[i][j] = V<A>{};
            if (y < 0 || y >= size.h || x < 0 || x >= size.w) continue;
            d[i][j] = load<A>(image.data + offset, left);
            if (image.mask) d[i][j] = load<A>(image.mask + offset, left) <= 0 ? V<A>{} : d[i][j];
        }
}

// Some vectors as one step of a product: one number of each, or a pair of bfloat16.
inline void put_step(float* to, const V<float> x[1]) { store(to, x[0]); }
inline void put_step(double* to, const V<double> x[1]) { store(to, x[0]); }
inline void put_step(bfloat16* to, const V<float> x[2]) {
    Halves half[2];
    for (int d = 0; d < 2; d++) store(reinterpret_cast<bfloat16*>(&half[d]), x[d]);
    const Words both = __builtin_convertvector(half[0], Words) | __builtin_convertvector(half[1], Words) << 16;
    std::memcpy(to, &both, sizeof both);
}

// Some tiles through a map, as (position, panel, step of `depth` tiles, channel of the panel, tile of the step); a panel
// has `width` channels. Only `positions` are wanted. P is the type in which products take them. `sums` gets the sum of
// each channel.
template <class Map, int depth, class A, class S, class M, class P>
void transform(const Image<S, M>& image, const Tiles& tiles, int64_t first, int64_t count, int64_t top, int64_t left,
               int64_t block, int64_t width, const Share& positions, P* v, A* sums) {
    const int64_t channels = padded<A>(image.size.c), stride = stride_of<P>(block, channels);
    for (int64_t t = 0; t < count; t += depth)
        for (int64_t c = 0; c < channels; c += Vector<A>::lanes) {
            P* to = v + c / width * block * width + t * width + c % width * depth;
            V<A> made[kPositions][depth];
            for (int k = 0; k < depth; k++) {
                if (t + k >= count) {
                    for (int p = 0; p < kPositions; p++) made[p][k] = V<A>{};
                    continue;
                }
                Place at = tiles.place(first + t + k);
                at.y -= top;
                at.x -= left;
                V<A> d[Map::from][Map::from];
                window<Map::from, A>(image, at, c, d);
                if (sums) {
                    V<A> sum = load(sums + c);
                    for (int i = 0; i < Map::from; i++) {  // rows apart: each sum waits for the one before it
                        V<A> row = d[i][0];
                        for (int j = 1; j < Map::from; j++) row += d[i][j];
                        sum += row;
                    }
                    store(sums + c, sum);
                }
                map_both<Map, A>([&](int i, int j) { return d[i][j]; },
                                 [&](int i, int j, V<A> x) {
                                     const int p = i * 6 + j;
                                     if constexpr (depth > 1) made[p][k] = x;
                                     else if (p >= positions.from && p < positions.to) store(to + p * stride, x);
                                 });
            }
            if constexpr (depth > 1)
                for (int64_t p = positions.from; p < positions.to; p++) put_step(to + p * stride, made[p]);
        }
}

// What comes out: plus bias, plus `add`, an image of the same size, and no less than 0 if `relu`. It may lie in
// `add` itself: each element is written by whom it was read by.
template <class S, class A>
struct Output {
    S* data;
    const S* add;
    const A* bias;
    bool relu;
    Size size;
};

// Asks for the places of some tiles, so that they are in the cache when the products have been taken. Inlined by force:
// g++ removes calls of a function that does nothing else.
template <class S, class A>
__attribute__((always_inline)) inline void prefetch(const Output<S, A>& out, const Tiles& tiles, int64_t first,
                                                    int64_t count) {
    const Size& size = out.size;
    for (int64_t t = 0; t < count; t++) {
        const Place at = tiles.place(first + t);
        const int64_t bytes = std::min<int64_t>(4, size.w - at.x) * size.c * sizeof(S);
        for (int64_t y = at.y; y < std::min(at.y + 4, size.h); y++) {
            const char* line = (const char*)(out.data + ((at.n * size.h + y) * size.w + at.x) * size.c);
            for (int64_t k = 0; k < bytes; k += 64) __builtin_prefetch(line + k, 1, 2);
        }
    }
}

template <class S, class A>
void untransform(const A* m, const Output<S, A>& out, const Tiles& tiles, int64_t first, int64_t count, int64_t from,
                 int64_t width) {
    const int64_t stride = stride_of<A>(kBlock, width);
    const Size& size = out.size;
    for (int64_t t = 0; t < count; t++) {
        const Place at = tiles.place(first + t);
        const int64_t high = std::min<int64_t>(4, size.h - at.y), wide = std::min<int64_t>(4, size.w - at.x);
        for (int64_t c = from; c < from + width && c < size.c; c += Vector<A>::lanes) {
            const int64_t start = ((at.n * size.h + at.y) * size.w + at.x) * size.c + c, left = size.c - c;
            const V<A> bias = out.bias ? load<A>(out.bias + c, left) : V<A>{};
            const A* d = m + t * width + c - from;
            map_both<OutputMap, A>([&](int i, int j) { return load(d + (i * 6 + j) * stride); },
                                   [&](int i, int j, V<A> y) {
                                       if (i >= high || j >= wide) return;
                                       const int64_t offset = start + (i * size.w + j) * size.c;
                                       y += bias;
                                       if (out.add) y += load<A>(out.add + offset, left);
                                       if (out.relu) y = y < 0 ? V<A>{} : y;  // NaN stays NaN
                                       store<A>(out.data + offset, y, left);
                                   });
        }
    }
}

// ---- matrix products --------------------------------------------------------------------------------------

// How many vectors of a row are computed at once, `most` of them or less; it divides their number.
template <class A>
int64_t vectors_at_once(int64_t channels, int64_t most) {
    const int64_t vectors = padded<A>(channels) / Vector<A>::lanes;
    return vectors % 3 == 0 ? 3 : vectors % 4 == 0 && most == 4 ? 4 : vectors % 2 == 0 ? 2 : 1;
}

// m = v u at each position, for a panel of N vectors of output channels.
template <class P, int64_t N>
void products(const P* v, const P* u, typename Term<P>::A* m, int64_t tiles, int64_t in) {
    typedef typename Term<P>::A A;
    constexpr int64_t lanes = Vector<A>::lanes, M = kSums / std::max<int64_t>(N, 2), width = N * lanes;
    static_assert(kBlock % M == 0, "a block is whole products");
    const int64_t row = padded<A>(in), steps = steps_of<P>(in);
    const int64_t v_stride = stride_of<P>(kBlock, row), m_stride = stride_of<A>(kBlock, width);
    const int64_t u_stride = steps * width * Term<P>::depth;
    for (int64_t p = 0; p < kPositions; p++)
        for (int64_t t = 0; t < tiles; t += M) {
            A* to = m + p * m_stride + t * width;
            product<P, M, N>(
                v + p * v_stride + t * row, row, Term<P>::depth, u + p * u_stride, steps,
                [](int64_t, int64_t) { return V<A>{}; },
                [&](int64_t i, int64_t j, V<A> sum) { store(to + i * width + j * lanes, sum); });
        }
}

// du += v^T g at each position, summed over `tiles`, for all panels of N vectors of output channels in turn.
template <class P, int64_t N>
void gradient_products(const P* v, const P* g, typename Term<P>::A* du, int64_t tiles, int64_t in, int64_t out,
                       const Share& positions) {
    typedef typename Term<P>::A A;
    constexpr int64_t lanes = Vector<A>::lanes, width = N * lanes, depth = Term<P>::depth;
    const int64_t v_row = padded<A>(in), g_row = padded<A>(out);
    const int64_t v_stride = stride_of<P>(kGradientBlock, v_row), g_stride = stride_of<P>(kGradientBlock, g_row);
    const int64_t du_stride = stride_of<A>(v_row, g_row);
    static_assert(64 / sizeof(A) % kRows == 0, "a row of a buffer is whole products");
    for (int64_t o = 0; o < g_row; o += width)
        for (int64_t p = positions.from; p < positions.to; p++)
            for (int64_t c = 0; c < in; c += kRows) {
                A* to = du + p * du_stride + c * g_row + o;
                product<P, kRows, N>(
                    v + p * v_stride + c * depth, depth, v_row * depth, g + p * g_stride + o * kGradientBlock,
                    steps_of<P>(tiles), [&](int64_t i, int64_t j) { return load(to + i * g_row + j * lanes); },
                    [&](int64_t i, int64_t j, V<A> sum) { store(to + i * g_row + j * lanes, sum); });
            }
}

// ---- kernels ----------------------------------------------------------------------------------------------

// The kernels (out, in, 3, 3); `turned` ones exchange the two and are turned by 180 degrees.
template <class S>
struct Kernels {
    const S* data;
    const int64_t* strides;
    bool turned;
};

// u = G w G^T as (panel, position, step of input channels, output channel). Every thread of a team calls it.
template <class S, class P>
void transform_weight(const Kernels<S>& w, int64_t in, int64_t out, int64_t width, P* u) {
    typedef typename Term<P>::A A;
    constexpr int64_t lanes = Vector<A>::lanes, depth = Term<P>::depth;
    constexpr int64_t chunk = 16;  // input channels: the same lines of memory hold what they need
    const int64_t steps = steps_of<P>(in), stride = steps * width * depth;
    const int64_t by_out = w.strides[w.turned ? 1 : 0], by_in = w.strides[w.turned ? 0 : 1];
#pragma omp for collapse(2) schedule(static)
    for (int64_t o = 0; o < padded<A>(out); o += lanes)
        for (int64_t first = 0; first < in; first += chunk)
            for (int64_t c = first; c < std::min(in, first + chunk); c += depth) {
                V<A> made[6][6][depth] = {};
                for (int64_t d = 0; d < depth && c + d < in; d++) {
                    const auto tap = [&](int i, int j) {
                        const int64_t y = w.turned ? 2 - i : i, x = w.turned ? 2 - j : j;
                        const S* from =
                            w.data + y * w.strides[2] + x * w.strides[3] + (c + d) * by_in + o * by_out;
                        if (by_out == 1) return load<A>(from, out - o);
                        S some[lanes] = {};
                        const int64_t count = std::min(lanes, out - o);
                        for (int64_t k = 0; k < count; k++) some[k] = from[k * by_out];
                        return load(some);
                    };
                    map_both<WeightMap, A>(tap, [&](int i, int j, V<A> x) { made[i][j][d] = x; });
                }
                P* to = u + o / width * kPositions * stride + (c / depth * width + o % width) * depth;
                for (int p = 0; p < kPositions; p++) put_step(to + p * stride, made[p / 6][p % 6]);
            }
}

// ---- what is exported -------------------------------------------------------------------------------------

// The type in which products take images of type S: bfloat16 where the processor multiplies it at twice the speed.
template <class S, class A>
struct Factor {
    typedef A type;
};
#if defined(__AVX512BF16__)
template <>
struct Factor<bfloat16, float> {
    typedef bfloat16 type;
};
#endif

template <class S, class M, class A>
void forward(const Image<S, M>& x, const Kernels<S>& w, const Output<S, A>& y, int64_t top, int64_t left,
             int threads) {
    typedef typename Factor<S, A>::type P;
    const Tiles tiles(y.size);
    const int64_t in = x.size.c, row = padded<A>(in);
    const int64_t vectors = vectors_at_once<A>(y.size.c, kSums / 6), width = vectors * Vector<A>::lanes;
    const int64_t panel = kPositions * steps_of<P>(in) * width * Term<P>::depth;
    const auto multiply = vectors == 4   ? products<P, 4>
                          : vectors == 3 ? products<P, 3>
                          : vectors == 2 ? products<P, 2>
                                         : products<P, 1>;
    P* u = scratch<kWeights, P>(padded<A>(y.size.c) / width * panel);
#pragma omp parallel num_threads(threads)
    {
        transform_weight(w, in, y.size.c, width, u);
        P* v = scratch<kInputs, P>(kPositions * stride_of<P>(kBlock, row));
        A* m = scratch<kProducts, A>(kPositions * stride_of<A>(kBlock, width));
        const Share share(tiles.count, kUnit, omp_get_thread_num(), omp_get_num_threads());
        for (int64_t first = share.from; first < share.to; first += kBlock) {
            const int64_t count = std::min(kBlock, share.to - first);
            transform<InputMap, 1>(x, tiles, first, count, top, left, kBlock, row, kAll, v, static_cast<A*>(nullptr));
            prefetch(y, tiles, first, count);
            for (int64_t from = 0; from < y.size.c; from += width) {
                multiply(v, u + from / width * panel, m, count, in);
                untransform(m, y, tiles, first, count, from, width);
            }
        }
    }
}

// dw as (output channel, 3, 3, input channel), and db. Each thread sums over its tiles, then all sums are added
// in order; where there are many, each thread takes its positions of all tiles instead.
template <class K, class S, class A>
void gradients(const Image<K>& x, const Image<S, K>& g, A* dw, A* db, int64_t top, int64_t left, int threads) {
    typedef typename Factor<S, A>::type P;
    constexpr int64_t lanes = Vector<A>::lanes, depth = Term<P>::depth, block = kGradientBlock;
    const Tiles tiles(g.size);
    const int64_t in = x.size.c, out = g.size.c, row = padded<A>(out), rows = padded<A>(in);
    const int64_t stride = stride_of<A>(rows, row), size = kPositions * stride;
    const bool shared = threads * size * int64_t(sizeof(A)) > kOwnBytes;
    const int64_t parts = shared ? 1 : threads;
    const int64_t vectors = vectors_at_once<A>(out, 3), width = vectors * Vector<A>::lanes;
    const auto multiply = vectors == 3   ? gradient_products<P, 3>
                          : vectors == 2 ? gradient_products<P, 2>
                                         : gradient_products<P, 1>;
    A* sums = scratch<kGradientSums, A>(parts * size + threads * row);
    A* biases = sums + parts * size;
    int64_t team = 1;
#pragma omp parallel num_threads(threads)
    {
        const int64_t thread = omp_get_thread_num(), all = omp_get_num_threads();
        const Share positions = shared ? Share(kPositions, 1, thread, all) : kAll;
        const Share mine = shared ? Share(tiles.count, 1, 0, 1) : Share(tiles.count, kUnit, thread, all);
        P* v = scratch<kInputs, P>(kPositions * stride_of<P>(block, rows));
        P* d = scratch<kGradients, P>(kPositions * stride_of<P>(block, row));
        A* du = shared ? sums : sums + thread * size;
        A* bias = biases + thread * row;
        std::memset(du + positions.from * stride, 0, (positions.to - positions.from) * stride * sizeof(A));
        std::memset(bias, 0, row * sizeof(A));
        for (int64_t first = mine.from; first < mine.to; first += block) {
            const int64_t count = std::min(block, mine.to - first);
            transform<InputMap, depth>(x, tiles, first, count, top, left, block, rows, positions, v,
                                       static_cast<A*>(nullptr));
            transform<GradientMap, depth>(g, tiles, first, count, 0, 0, block, width, positions, d, bias);
            multiply(v, d, du, count, in, out, positions);
        }
#pragma omp barrier
#pragma omp single
        team = all;
#pragma omp for schedule(static)
        for (int64_t c = 0; c < in; c++)
            for (int64_t o = 0; o < out; o += lanes) {
                const auto total = [&](int i, int j) {
                    V<A> u{};
                    for (int64_t k = 0; k < (shared ? 1 : team); k++)
                        u += load(sums + k * size + (i * 6 + j) * stride + c * row + o);
                    return u;
                };
                map_both<KernelMap, A>(total, [&](int i, int j, V<A> x) {
                    for (int64_t k = 0; k < lanes && o + k < out; k++) dw[((o + k) * 9 + i * 3 + j) * in + c] = x[k];
                });
            }
    }
    for (int64_t o = 0; o < out; o++) {
        db[o] = 0;
        for (int64_t k = 0; k < (shared ? 1 : team); k++) db[o] += biases[k * row + o];
    }
}

Size size_of(const int64_t* sizes) { return {sizes[0], sizes[1], sizes[2], sizes[3]}; }

}  // namespace

// K is the type of what was kept from the forward pass: x, and the mask.
#define EXPORT(NAME, S, K, A)                                                                                   \
    extern "C" void forward_##NAME(const S* x, const K* mask, const int64_t* x_size, const S* w,                \
                                   const int64_t* w_strides, int64_t turned, const A* bias, const S* add,       \
                                   int64_t relu, S* y, const int64_t* y_size, int64_t top, int64_t left,        \
                                   int64_t threads) {                                                           \
        const Image<S, K> image = {x, mask, size_of(x_size)};                                                   \
        const Output<S, A> output = {y, add, bias, relu != 0, size_of(y_size)};                                 \
        forward<S, K, A>(image, {w, w_strides, turned != 0}, output, top, left, threads);                       \
    }                                                                                                           \
    extern "C" void gradients_##NAME(const S* g, const K* mask, const int64_t* g_size, const K* x,              \
                                     const int64_t* x_size, A* dw, A* db, int64_t top, int64_t left,            \
                                     int64_t threads) {                                                         \
        const Image<K> image = {x, nullptr, size_of(x_size)};                                                   \
        gradients<K, S, A>(image, {g, mask, size_of(g_size)}, dw, db, top, left, threads);                      \
    }

EXPORT(float32, float, float, float)
EXPORT(float64, double, double, double)
EXPORT(bfloat16, bfloat16, bfloat16, float)
EXPORT(kept_float32, float, bfloat16, float)
