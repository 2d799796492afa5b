// y = x w + b for tall x, with max(., 0) behind it if wanted, and the gradients of all three in one pass.
//
//     dx = m(g) w^T,    dw = x^T m(g),    db = the sum of m(g)'s rows;    m(g) is 0 where y is not above 0, else g.
//
// A matrix's rows lie one behind the other, or are the patches of an image N H W C, each in pieces. A thread
// takes a band of rows at a time, which stays in its cache.

#include <omp.h>

#include "products.h"

namespace {

constexpr int64_t kBand = 192;  // rows
static_assert(kBand % kSums == 0, "a band is whole products");
enum Purpose { kRight, kRightTurned, kMasked, kLeftPairs, kRightPairs, kWeightSums, kBandOfX, kBandOfY };

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
    const auto run = multiply_by(panels);
#pragma omp parallel num_threads(threads)
    {
        pack(w, size.rows, size.columns, size.by_row, size.by_column, panels, right);
#pragma omp barrier
        const Share share(rows, panels.rows, omp_get_thread_num(), omp_get_num_threads());
        for (int64_t first = share.from; first < share.to; first += kBand) {
            const int64_t count = std::min(kBand, share.to - first);
            const S* a = gathered<kBandOfX>(x, first, count, panels.rows);
            S* result = place_for(y, first);
            run(a, size.rows, count, right, panels, bias, relu, nullptr, result, size.columns);
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
    const auto back = multiply_by(into);

    const bool across = turned_sums<S>(in, out, turned);
    const int64_t dw_rows = across ? out : in, dw_columns = across ? in : out;
    const Panels<S> panels(dw_columns);
    const auto add = multiply_turned_by(panels);
    const int64_t left_width = rounded_up(dw_rows, lanes), row = panels.columns(), bias_size = out + lanes;
    const int64_t bias_at = rounded_up(dw_rows, kSums) * row, sums_size = bias_at + bias_size;
    A* sums = scratch<kWeightSums, A>(threads * sums_size);
#pragma omp parallel num_threads(threads)
    {
        if (dx.data) pack(w, out, in, size.by_column, size.by_row, into, right);
#pragma omp barrier
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
                back(grad, out, count, right, into, nullptr, false, nullptr, result, in);
                scatter(result, dx, first, count);
            }
            const S* band = gathered<kBandOfX>(x, first, count, 1);
            pack_rows(across ? grad : band, count, dw_rows, dw_rows, left_width, 0, left_width, left);
            pack_rows(across ? band : grad, count, dw_columns, dw_columns, panels.width, 0, row, pairs);
            add(left, dw_rows, left_width, pairs, panels, steps_of<S>(count), mine);
        }
#pragma omp barrier
        add_up(sums, sums_size, all, dw_rows, dw_columns, row, across != turned, dw);
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
