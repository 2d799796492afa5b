// Products of tall matrices with small ones: y = x w + b, and x^T g, in bands of rows.
//
// What stands on the right of a product is laid out in panels first: for some columns, row after row, so that the
// innermost loop reads it as it lies. bfloat16 is multiplied in pairs of neighbouring rows, which the processor
// adds up in float by itself where it can (AVX512-BF16); S is the type in memory, A the one of the sums.

#pragma once

#include "vectors.h"

namespace {

constexpr int64_t kFirstCache = 32768;

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

// Some rows of numbers next to each other into panels; zeros fill what is missing. `sum`, if given, takes up their
// sum.
template <class S>
void pack_rows(const S* from, int64_t rows, int64_t columns, int64_t by_row, int64_t width, int64_t first, int64_t last,
               S* to, typename Term<S>::A* sum = nullptr) {
    typedef typename Term<S>::A A;
    constexpr int64_t depth = Term<S>::depth, lanes = Vector<A>::lanes;
    const int64_t steps = steps_of<S>(rows), size = steps * width * depth;
    for (int64_t k = 0; k < steps; k++)
        for (int64_t c = first; c < last; c += lanes) {
            S* at = to + c / width * size + (k * width + c % width) * depth;
            const S* row = from + k * depth * by_row + c;
            V<A> value = load<A>(row, columns - c);
            if constexpr (depth == 1) {
                store(at, value);
            } else {
                const V<A> next = k * depth + 1 < rows ? load<A>(row + by_row, columns - c) : V<A>{};
                const Words both = (Words)value >> 16 | (Words)next;
                std::memcpy(at, &both, sizeof both);
                value += next;
            }
            if (sum) store<A>(sum + c, load<A>(sum + c, columns - c) + value, columns - c);
        }
}

// A matrix of any strides into panels, by all threads of a region. Nobody waits for the others.
template <class S>
void pack(const S* from, int64_t rows, int64_t columns, int64_t by_row, int64_t by_column, const Panels<S>& panels,
          S* to) {
    constexpr int64_t depth = Term<S>::depth;
    const int64_t steps = steps_of<S>(rows), size = steps * panels.width * depth;
#pragma omp for schedule(static) nowait
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

// sums[i][j] += over k of a[i * a_row + k * a_step] times step k of a panel, for M rows and N vectors. All loops but
// the one over k are unrolled: else the sums would go through memory to `put`.
template <class S, int64_t M, int64_t N, class Take, class Put>
inline void product(const S* a, int64_t a_row, int64_t a_step, const S* panel, int64_t steps, const Take& take,
                    const Put& put) {
    typedef Term<S> T;
    constexpr int64_t lanes = Vector<typename T::A>::lanes;
    V<typename T::A> sums[M][N];
#pragma GCC unroll 24
    for (int64_t i = 0; i < M; i++)
#pragma GCC unroll 24
        for (int64_t j = 0; j < N; j++) sums[i][j] = take(i, j);
    for (int64_t k = 0; k < steps; k++) {
        typename T::Right right[N];
#pragma GCC unroll 24
        for (int64_t j = 0; j < N; j++)
            right[j] = read<typename T::Right>(panel + (k * N + j) * lanes * T::depth);
#pragma GCC unroll 24
        for (int64_t i = 0; i < M; i++) {
            const auto left = read<typename T::Left>(a + i * a_row + k * a_step);
#pragma GCC unroll 24
            for (int64_t j = 0; j < N; j++) sums[i][j] = add_product(sums[i][j], left, right[j]);
        }
    }
#pragma GCC unroll 24
    for (int64_t i = 0; i < M; i++)
#pragma GCC unroll 24
        for (int64_t j = 0; j < N; j++) put(i, j, sums[i][j]);
}

// A band of rows times all panels: y = a w + bias, no less than 0 if `relu`, and 0 where `mask`, if given, is not above
// 0. `a` has whole products of rows.
template <class S, int64_t N>
void multiply(const S* a, int64_t depth, int64_t count, const S* right, const Panels<S>& panels,
              const typename Term<S>::A* bias, bool relu, const S* mask, S* y, int64_t columns) {
    typedef Term<S> T;
    typedef typename T::A A;
    constexpr int64_t lanes = Vector<A>::lanes, M = kSums / N;
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
                        const int64_t at = (m + i) * columns + column;
                        if (relu) sum = sum < 0 ? V<A>{} : sum;  // NaN stays NaN
                        if (mask) sum = load<A>(mask + at, columns - column) <= 0 ? V<A>{} : sum;
                        store<A>(y + at, sum, columns - column);
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
            for (int64_t i = 0; i < M; i++)  // in the first cache when they are added to
                for (int64_t j = 0; j < N; j++) __builtin_prefetch(to + i * row + j * lanes, 1);
            product<S, M, N>(
                left + i0 * T::depth, T::depth, width * T::depth, right + p * steps * panels.width * T::depth, steps,
                [&](int64_t, int64_t) { return V<A>{}; },
                [&](int64_t i, int64_t j, V<A> sum) {
                    A* at = to + i * row + j * lanes;
                    store(at, load(at) + sum);
                });
        }
}

// Whether the sums of x^T g are taken turned, (out, in), for they are whole products then; `otherwise` if that is equal.
template <class S>
bool turned_sums(int64_t in, int64_t out, bool otherwise) {
    const auto sums = [](int64_t rows, int64_t columns) {
        const Panels<S> panels(columns);
        return rounded_up(rows, panels.rows) * panels.columns();
    };
    return sums(out, in) == sums(in, out) ? otherwise : sums(out, in) < sums(in, out);
}

// The sums of all threads in order, by all of them: rows `row` numbers apart, the threads' sums `size` apart, into a
// dense matrix, or its transpose if `turned`. Nobody waits for the others.
template <class A>
void add_up(const A* sums, int64_t size, int64_t threads, int64_t rows, int64_t columns, int64_t row, bool turned,
            A* to) {
    constexpr int64_t lanes = Vector<A>::lanes;
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j += lanes) {
            V<A> total{};
            for (int64_t k = 0; k < threads; k++) total += load(sums + k * size + i * row + j);
            if (!turned) store<A>(to + i * columns + j, total, columns - j);
            for (int64_t k = 0; turned && k < std::min(lanes, columns - j); k++) to[(j + k) * rows + i] = total[k];
        }
}

template <class S>
auto multiply_by(const Panels<S>& panels) {
    return panels.vectors == 3 ? multiply<S, 3> : panels.vectors == 2 ? multiply<S, 2> : multiply<S, 1>;
}

template <class S>
auto multiply_turned_by(const Panels<S>& panels) {
    return panels.vectors == 3   ? multiply_turned<S, 3>
           : panels.vectors == 2 ? multiply_turned<S, 2>
                                 : multiply_turned<S, 1>;
}

}  // namespace
