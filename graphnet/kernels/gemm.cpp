// y = x w + b for tall x, with max(., 0) behind it if wanted, and the gradients of all three in one pass.
//
//     dx = m(g) w^T,    dw = x^T m(g),    db = the sum of m(g)'s rows;    m(g) is 0 where y is not above 0, else g.
//
// A matrix's rows lie one behind the other, or are the patches of an image N H W C, each in pieces. A thread
// takes a band of rows at a time, which stays in its cache. What stands on the right of a product is
// laid out in panels first: for some columns, row after row, so that the innermost loop reads it as it lies.
// bfloat16 is multiplied in pairs of neighbouring rows, which the processor adds up in float by itself where
// it can (AVX512-BF16); S is the type in memory, A the one of the sums.

#include <omp.h>

#include "vectors.h"

namespace {

constexpr int64_t kFirstCache = 32768;
constexpr int64_t kBand = 192;  // rows; a multiple of all that a product takes at once
enum Purpose { kRight, kRightTurned, kMasked, kLeftPairs, kRightPairs, kWeightSums, kBandOfX, kBandOfY };

// ---- the terms of a sum: one number, or a pair of bfloat16 ------------------------------------------------

template <class S>
struct Term {  // of float and double
    typedef S A;
    static constexpr int64_t depth = 1;
    typedef S Left;
    typedef V<S> Right;
};

template <>
struct Term<bfloat16> {
    typedef float A;
    static constexpr int64_t depth = 2;
    typedef uint32_t Left;  // two of them, the first in the lower half
    typedef Words Right;
};

template <class S>
inline V<S> add_product(V<S> sum, S left, V<S> right) {
    return sum + left * right;
}

#if defined(__AVX512BF16__)
inline V<float> add_product(V<float> sum, uint32_t left, Words right) {
    return (V<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(left), (__m512bh)right);
}
#else
inline V<float> add_product(V<float> sum, uint32_t left, Words right) {
    const Words both = left + Words{};
    sum += (V<float>)(both << 16) * (V<float>)(right << 16);
    return sum + (V<float>)(both & 0xffff0000) * (V<float>)(right & 0xffff0000);
}
#endif

template <class T>
inline T read(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

// ---- panels -----------------------------------------------------------------------------------------------

// The columns of a matrix in panels of some vectors each, for products that take `rows` at once.
template <class S>
struct Panels {
    typedef typename Term<S>::A A;
    int64_t vectors, width, rows, count;
    explicit Panels(int64_t columns) {
        const int64_t all = (columns + Vector<A>::lanes - 1) / Vector<A>::lanes;
        vectors = all == 1 ? 1 : all % 3 == 0 ? 3 : 2;
        width = vectors * Vector<A>::lanes;
        rows = kSums / vectors;
        count = (columns + width - 1) / width;
    }
    int64_t columns() const { return count * width; }
};

template <class S>
int64_t steps_of(int64_t rows) {
    return (rows + Term<S>::depth - 1) / Term<S>::depth;
}

// Some rows of numbers next to each other into panels; zeros fill what is missing.
template <class S>
void pack_rows(const S* from, int64_t rows, int64_t columns, int64_t by_row, int64_t width, int64_t first, int64_t last,
               S* to) {
    typedef typename Term<S>::A A;
    constexpr int64_t depth = Term<S>::depth, lanes = Vector<A>::lanes;
    const int64_t steps = steps_of<S>(rows), size = steps * width * depth;
    for (int64_t k = 0; k < steps; k++)
        for (int64_t c = first; c < last; c += lanes) {
            S* at = to + c / width * size + (k * width + c % width) * depth;
            const S* row = from + k * depth * by_row + c;
            if constexpr (depth == 1) {
                store(at, load<A>(row, columns - c));
            } else {
                const bool second = k * depth + 1 < rows;
                const Words low = (Words)load<A>(row, columns - c) >> 16;
                const Words high = second ? (Words)load<A>(row + by_row, columns - c) : Words{};
                const Words both = low | high;
                std::memcpy(at, &both, sizeof both);
            }
        }
}

// A matrix of any strides into panels.
template <class S>
void pack(const S* from, int64_t rows, int64_t columns, int64_t by_row, int64_t by_column, const Panels<S>& panels,
          S* to, int threads) {
    constexpr int64_t depth = Term<S>::depth;
    const int64_t steps = steps_of<S>(rows), size = steps * panels.width * depth;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t panel = 0; panel < panels.count; panel++) {
        const int64_t first = panel * panels.width;
        if (by_column == 1) {
            pack_rows(from, rows, columns, by_row, panels.width, first, first + panels.width, to);
            continue;
        }
        for (int64_t j = 0; j < panels.width; j++) {
            typedef typename Term<S>::Left Step;  // of one column: they lie next to each other, or are gathered
            S* at = to + panel * size + j * depth;
            const S* column = from + (first + j) * by_column;
            const int64_t whole = first + j >= columns ? 0 : by_row == 1 ? rows / depth : 0;
            for (int64_t k = 0; k < whole; k++)
                std::memcpy((void*)(at + k * panels.width * depth), column + k * depth, sizeof(Step));
            for (int64_t k = whole; k < steps; k++)
                for (int64_t d = 0; d < depth; d++) {
                    const int64_t row = k * depth + d;
                    at[k * panels.width * depth + d] = first + j < columns && row < rows ? column[row * by_row] : S{};
                }
        }
    }
}

// ---- the product ------------------------------------------------------------------------------------------

// sums[i][j] += over k of a[i * a_row + k * a_step] times step k of a panel, for M rows and N vectors.
template <class S, int64_t M, int64_t N, class Take, class Put>
inline void product(const S* a, int64_t a_row, int64_t a_step, const S* panel, int64_t steps, const Take& take,
                    const Put& put) {
    typedef Term<S> T;
    constexpr int64_t lanes = Vector<typename T::A>::lanes;
    V<typename T::A> sums[M][N];
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) sums[i][j] = take(i, j);
    for (int64_t k = 0; k < steps; k++) {
        typename T::Right right[N];
        for (int64_t j = 0; j < N; j++)
            right[j] = read<typename T::Right>(panel + (k * N + j) * lanes * T::depth);
        for (int64_t i = 0; i < M; i++) {
            const auto left = read<typename T::Left>(a + i * a_row + k * a_step);
            for (int64_t j = 0; j < N; j++) sums[i][j] = add_product(sums[i][j], left, right[j]);
        }
    }
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) put(i, j, sums[i][j]);
}

// A band of rows times all panels: y = a w + bias, no less than 0 if `relu`. `a` has whole products of rows.
template <class S, int64_t N>
void multiply(const S* a, int64_t depth, int64_t count, const S* right, const Panels<S>& panels,
              const typename Term<S>::A* bias, bool relu, S* y, int64_t columns) {
    typedef Term<S> T;
    typedef typename T::A A;
    constexpr int64_t lanes = Vector<A>::lanes, M = kSums / N;
    static_assert(kBand % M == 0, "a band is whole products");
    const int64_t steps = steps_of<S>(depth), size = steps * panels.width * T::depth;
    // A panel stays in the first cache for all rows; if it is too large, some rows stay there for all panels.
    const int64_t chunk = size * int64_t(sizeof(S)) <= kFirstCache / 2 ? count : M;
    for (int64_t from = 0; from < count; from += chunk)
        for (int64_t p = 0; p < panels.count; p++) {
            const int64_t first = p * panels.width;
            V<A> shift[N];
            for (int64_t j = 0; j < N; j++)
                shift[j] = bias ? load<A>(bias + first + j * lanes, columns - first - j * lanes) : V<A>{};
            for (int64_t m = from; m < std::min(count, from + chunk); m += M)
                product<S, M, N>(
                    a + m * depth, depth, T::depth, right + p * size, steps,
                    [&](int64_t, int64_t j) { return shift[j]; },
                    [&](int64_t i, int64_t j, V<A> sum) {
                        const int64_t column = first + j * lanes;
                        if (m + i >= count || column >= columns) return;
                        if (relu) sum = sum < 0 ? V<A>{} : sum;  // NaN stays NaN
                        store<A>(y + (m + i) * columns + column, sum, columns - column);
                    });
        }
}

// sums (rows x panels) += left^T right over a band, both in panels; left's is one of `width` columns.
template <class S, int64_t N>
void multiply_turned(const S* left, int64_t rows, int64_t width, const S* right, const Panels<S>& panels, int64_t steps,
                     typename Term<S>::A* sums) {
    typedef Term<S> T;
    typedef typename T::A A;
    constexpr int64_t lanes = Vector<A>::lanes, M = kSums / N;
    const int64_t row = panels.columns();
    for (int64_t p = 0; p < panels.count; p++)
        for (int64_t i0 = 0; i0 < rows; i0 += M) {
            A* to = sums + i0 * row + p * panels.width;
            product<S, M, N>(
                left + i0 * T::depth, T::depth, width * T::depth, right + p * steps * panels.width * T::depth, steps,
                [&](int64_t i, int64_t j) { return load(to + i * row + j * lanes); },
                [&](int64_t i, int64_t j, V<A> sum) { store(to + i * row + j * lanes, sum); });
        }
}

// ---- what is exported -------------------------------------------------------------------------------------

// A matrix (rows, columns), and how far its elements lie apart.
struct Size {
    int64_t rows, columns, by_row, by_column;
};

// The rows of a matrix in memory: `pieces` pieces of `length` numbers each, the rows of a patch. The first pieces
// of `wide` patches lie next to each other, the second ones behind them. In one piece, it is a plain matrix.
template <class S>
struct Rows {
    S* data;
    int64_t wide, pieces, length;
    Rows(S* data, const int64_t* form, int64_t columns)
        : data(data), wide(form[0]), pieces(form[1]), length(columns / form[1]) {}
    int64_t columns() const { return pieces * length; }
    S* plain(int64_t row) const { return data + row * length; }
    template <class Act>
    void each(int64_t first, int64_t count, const Act& act) const {  // act(row from first, column, the piece there)
        int64_t line = first / wide, place = first % wide;
        for (int64_t m = 0; m < count; m++) {
            S* piece = data + (line * pieces * wide + place) * length;
            for (int64_t i = 0; i < pieces; i++) act(m, i * length, piece + i * wide * length);
            if (++place == wide) place = 0, line++;
        }
    }
};

// Some rows as a plain matrix: as they lie, or a copy with zeros behind it, as a product takes several at once.
template <int purpose, class S>
const S* gathered(const Rows<const S>& x, int64_t first, int64_t count, int64_t multiple) {
    if (x.pieces == 1 && count % multiple == 0) return x.plain(first);
    S* copy = scratch<purpose, S>(kBand * x.columns());
    if (count < kBand) std::memset((void*)copy, 0, kBand * x.columns() * sizeof(S));
    x.each(first, count, [&](int64_t m, int64_t column, const S* piece) {
        std::memcpy((void*)(copy + m * x.columns() + column), piece, x.length * sizeof(S));
    });
    return copy;
}

// Where some rows of a result are computed, and what brings them to their place.
template <class S>
S* place_for(const Rows<S>& y, int64_t first) {
    return y.pieces == 1 ? y.plain(first) : scratch<kBandOfY, S>(kBand * y.columns());
}

template <class S>
void scatter(const S* from, const Rows<S>& y, int64_t first, int64_t count) {
    if (y.pieces == 1) return;
    y.each(first, count, [&](int64_t m, int64_t column, S* piece) {
        std::memcpy((void*)piece, from + m * y.columns() + column, y.length * sizeof(S));
    });
}

template <class S>
void forward(const Rows<const S>& x, int64_t rows, const S* w, const Size& size, const typename Term<S>::A* bias,
             bool relu, const Rows<S>& y, int threads) {
    const Panels<S> panels(size.columns);
    const int64_t depth = steps_of<S>(size.rows) * Term<S>::depth;
    S* right = scratch<kRight, S>(depth * panels.columns());
    pack(w, size.rows, size.columns, size.by_row, size.by_column, panels, right, threads);
    const auto run = panels.vectors == 3 ? multiply<S, 3> : panels.vectors == 2 ? multiply<S, 2> : multiply<S, 1>;
#pragma omp parallel num_threads(threads)
    {
        const Share share(rows, panels.rows, omp_get_thread_num(), omp_get_num_threads());
        for (int64_t first = share.from; first < share.to; first += kBand) {
            const int64_t count = std::min(kBand, share.to - first);
            const S* a = gathered<kBandOfX>(x, first, count, panels.rows);
            S* result = place_for(y, first);
            run(a, size.rows, count, right, panels, bias, relu, result, size.columns);
            scatter(result, y, first, count);
        }
    }
}

// Some rows of the gradient where the mask is above 0, and zeros behind them; `sum` takes up their sum.
template <class S>
const S* masked_sum(const Rows<const S>& g, const S* mask, int64_t first, int64_t count, typename Term<S>::A* sum) {
    typedef typename Term<S>::A A;
    constexpr int64_t lanes = Vector<A>::lanes;
    S* masked = scratch<kMasked, S>(kBand * g.columns());
    if (count < kBand) std::memset((void*)masked, 0, kBand * g.columns() * sizeof(S));
    g.each(first, count, [&](int64_t m, int64_t column, const S* piece) {
        for (int64_t c = 0; c < g.length; c += lanes) {
            V<A> value = load<A>(piece + c, g.length - c);
            if (mask) value = load<A>(mask + (piece - g.data) + c, g.length - c) <= 0 ? V<A>{} : value;
            store<A>(masked + m * g.columns() + column + c, value, g.length - c);
            store(sum + column + c, load(sum + column + c) + value);
        }
    });
    return masked;
}

// dx and db are computed if they are there. dw is (rows, columns) of w, or the other way round if `turned`. Each thread sums
// over its rows, then all sums are added in order.
template <class S>
void gradients(const Rows<const S>& g, const S* mask, const Rows<const S>& x, int64_t rows, const S* w,
               const Size& size, const Rows<S>& dx, typename Term<S>::A* dw, typename Term<S>::A* db, bool turned,
               int threads) {
    typedef Term<S> T;
    typedef typename T::A A;
    constexpr int64_t lanes = Vector<A>::lanes;
    const int64_t in = size.rows, out = size.columns;
    const Panels<S> into(in);
    S* right = scratch<kRightTurned, S>(steps_of<S>(out) * T::depth * into.columns());
    if (dx.data) pack(w, out, in, size.by_column, size.by_row, into, right, threads);
    const auto back = into.vectors == 3 ? multiply<S, 3> : into.vectors == 2 ? multiply<S, 2> : multiply<S, 1>;

    const int64_t dw_rows = turned ? out : in, dw_columns = turned ? in : out;
    const Panels<S> panels(dw_columns);
    const auto add = panels.vectors == 3   ? multiply_turned<S, 3>
                     : panels.vectors == 2 ? multiply_turned<S, 2>
                                           : multiply_turned<S, 1>;
    const int64_t left_width = rounded_up(dw_rows, lanes), row = panels.columns(), bias_size = out + lanes;
    const int64_t bias_at = rounded_up(dw_rows, kSums) * row, sums_size = bias_at + bias_size;
    A* sums = scratch<kWeightSums, A>(threads * sums_size);
#pragma omp parallel num_threads(threads)
    {
        const int64_t thread = omp_get_thread_num(), all = omp_get_num_threads();
        const Share share(rows, kSums, thread, all);
        S* left = scratch<kLeftPairs, S>(kBand * left_width + kSums * T::depth);  // a product may look behind it
        S* pairs = scratch<kRightPairs, S>(kBand * row);
        A* mine = sums + thread * sums_size;
        A* bias = mine + bias_at;
        std::memset(mine, 0, sums_size * sizeof(A));
        for (int64_t first = share.from; first < share.to; first += kBand) {
            const int64_t count = std::min(kBand, share.to - first);
            const S* grad = mask || db ? masked_sum(g, mask, first, count, bias) : gathered<kMasked>(g, first, count, kSums);
            if (dx.data) {
                S* result = place_for(dx, first);
                back(grad, out, count, right, into, nullptr, false, result, in);
                scatter(result, dx, first, count);
            }
            const S* band = gathered<kBandOfX>(x, first, count, 1);
            pack_rows(turned ? grad : band, count, dw_rows, dw_rows, left_width, 0, left_width, left);
            pack_rows(turned ? band : grad, count, dw_columns, dw_columns, panels.width, 0, row, pairs);
            add(left, dw_rows, left_width, pairs, panels, steps_of<S>(count), mine);
        }
#pragma omp barrier
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < dw_rows; i++)
            for (int64_t j = 0; j < dw_columns; j += lanes) {
                V<A> total{};
                for (int64_t k = 0; k < all; k++) total += load(sums + k * sums_size + i * row + j);
                store<A>(dw + i * dw_columns + j, total, dw_columns - j);
            }
#pragma omp single
        for (int64_t j = 0; db && j < out; j++) {
            db[j] = 0;
            for (int64_t k = 0; k < all; k++) db[j] += sums[k * sums_size + bias_at + j];
        }
    }
}

}  // namespace

// `x_form` and `y_form` are {wide, pieces} of Rows.
#define EXPORT(NAME, S, A)                                                                                          \
    extern "C" void forward_##NAME(const S* x, const int64_t* x_form, int64_t rows, const S* w, const int64_t* size, \
                                   const A* bias, int64_t relu, S* y, const int64_t* y_form, int64_t threads) {     \
        forward<S>({x, x_form, size[0]}, rows, w, {size[0], size[1], size[2], size[3]}, bias, relu != 0,            \
                   {y, y_form, size[1]}, threads);                                                                  \
    }                                                                                                               \
    extern "C" void gradients_##NAME(const S* x, const int64_t* x_form, const S* g, const S* mask,                  \
                                     const int64_t* y_form, int64_t rows, const S* w, const int64_t* size, S* dx,   \
                                     A* dw, A* db, int64_t turned, int64_t threads) {                               \
        gradients<S>({g, y_form, size[1]}, mask, {x, x_form, size[0]}, rows, w,                                     \
                     {size[0], size[1], size[2], size[3]}, {dx, x_form, size[0]}, dw, db, turned != 0, threads);    \
    }

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, bfloat16, float)
