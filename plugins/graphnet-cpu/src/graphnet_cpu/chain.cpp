// A chain of products, the mean squared error of what comes out of it, and all gradients of that, in one pass.
//
//     y_i = r_i(y_{i-1} w_i + b_i),   loss = mean (s(y_n) - target)^2;   r_i is max(., 0) or nothing, s the logistic
//                                                                       function or nothing.
//     g_n = 2 (s(y_n) - target) s'(y_n) / numbers,   dw_i = y_{i-1}^T m_i(g_i),   db_i = the sum of m_i(g_i)'s rows,
//     g_{i-1} = m_i(g_i) w_i^T;   m_i(g) is 0 where r_i cut y_i off, else g.
//
// The matrices are patches of images in blocks: what is y_i's row for one product may be several rows, or a part of
// one, for the next. A thread takes a band of the coarsest patches through all of it, so that nothing between x
// and the gradients ever leaves its cache.

#include <omp.h>

#include <cmath>
#include <vector>

#include "products.h"

namespace {

constexpr int64_t kRowBytes = 2304;  // of a column of the product with most rows, at once
enum Purpose {
    kPacked, kShifts, kWeightSums, kBandOfX, kOutputs, kSlopes, kOtherSlopes, kLeftPairs, kRightPairs
};

inline V<double> exponential(V<double> x) {
    for (int64_t i = 0; i < Vector<double>::lanes; i++) x[i] = std::exp(x[i]);
    return x;
}

// 2^n e^r for x = n log 2 + r; what e^r's series leaves out is below float's rounding for |r| <= log(2) / 2.
inline V<float> exponential(V<float> x) {
    typedef int32_t Whole __attribute__((vector_size(kBytes)));
    constexpr float kRounding = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction
    x = x < -87.0f ? V<float>{} - 87.0f : x > 88.0f ? V<float>{} + 88.0f : x;
    const V<float> n = (x * 1.44269504f + kRounding) - kRounding;
    const V<float> r = x - n * 0.693359375f + n * 2.12194440e-4f;
    V<float> series = V<float>{} + 1.0f / 5040.0f;
    for (const float term : {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f})
        series = series * r + term;
    return series * (V<float>)((__builtin_convertvector(n, Whole) + 127) << 23);
}

// One product of the chain. For each of the coarsest patches it has `rows` rows of `in` numbers, and makes as many of
// `out`. Each of the `taps` parts of an output row is shifted by the same bias.
template <class S>
struct Product {
    typedef typename Term<S>::A A;
    int64_t rows, in, out, by_row, by_column, taps;
    bool relu, turned, across;  // turned: the weight's gradient is (out, in); across: its sums are
    const S *w, *bias;
    Panels<S> panels, into, weight_panels;
    int64_t right_at, turned_at, shift_at;  // in what all threads read
    int64_t sums_at, bias_at;               // in a thread's sums
    int64_t outputs_at;                     // in a band's memory
    int64_t gradient_at;                    // in the result: the weight's, behind it the bias'

    Product(const int64_t* step, int64_t w, int64_t bias)
        : rows(step[0]), in(step[1]), out(step[2]), by_row(step[3]), by_column(step[4]), taps(step[5]),
          relu(step[6] != 0), turned(step[7] != 0), across(turned_sums<S>(in, out, turned)),
          w(reinterpret_cast<const S*>(w)), bias(reinterpret_cast<const S*>(bias)), panels(out), into(in),
          weight_panels(across ? in : out) {}
    int64_t packed() const { return steps_of<S>(in) * Term<S>::depth * panels.columns(); }
    int64_t packed_turned() const { return steps_of<S>(out) * Term<S>::depth * into.columns(); }
    int64_t weight_rows() const { return across ? out : in; }
    int64_t weight_columns() const { return across ? in : out; }
    int64_t left_width() const { return rounded_up(weight_rows(), Vector<A>::lanes); }
    int64_t gradients() const { return in * out + (bias ? out / taps : 0); }
};

// What stands behind one another in a piece of memory.
struct Places {
    int64_t size = 0;
    int64_t take(int64_t count) {
        const int64_t at = size;
        size += rounded_up(count, 64);
        return at;
    }
};

template <class S>
struct Chain {
    typedef typename Term<S>::A A;
    static constexpr int64_t lanes = Vector<A>::lanes, depth = Term<S>::depth;
    std::vector<Product<S>> products;
    bool logistic;
    int64_t band, x_size, y_size;  // the coarsest patches at once; numbers of one of them
    int64_t packed_size, shifts_size, outputs_size, widest, left_size, right_size, sums_size, losses_at;

    Chain(int64_t count, const int64_t* steps, const int64_t* weights, const int64_t* biases, bool logistic)
        : logistic(logistic) {
        Places packed, shifts, sums, outputs;
        int64_t gradients = 0, most = 1;
        for (int64_t i = 0; i < count; i++) products.emplace_back(steps + 8 * i, weights[i], biases[i]);
        for (const auto& p : products) most = std::max(most, p.rows);
        band = rounded_up(std::max(kRowBytes / int64_t(sizeof(S)) / most, int64_t(1)), kSums);
        widest = left_size = right_size = 0;
        for (auto& p : products) {
            p.right_at = packed.take(p.packed());
            p.turned_at = packed.take(p.packed_turned());
            p.shift_at = shifts.take(p.out);
            p.sums_at = sums.take(rounded_up(p.weight_rows(), kSums) * p.weight_panels.columns());
            p.bias_at = sums.take(p.out + lanes);
            p.gradient_at = gradients;
            gradients += p.gradients();
            const int64_t all = band * p.rows, behind = kSums * std::max(p.in, p.out);  // a product may look there
            p.outputs_at = outputs.take(all * p.out + behind);
            widest = std::max(widest, all * std::max(p.in, p.out) + behind);
            left_size = std::max(left_size, all * p.left_width() + kSums * depth);
            right_size = std::max(right_size, (all + depth) * p.weight_panels.columns());
        }
        losses_at = sums.take(lanes);
        packed_size = packed.size, shifts_size = shifts.size, outputs_size = outputs.size, sums_size = sums.size;
        x_size = products.front().rows * products.front().in, y_size = products.back().rows * products.back().out;
    }

    // The loss' share and g_n of a band whose y_n lies in `y`.
    V<A> loss(const S* y, const A* target, int64_t count, A scale, bool relu, S* slopes) const {
        V<A> total{};
        for (int64_t c = 0; c < count; c += lanes) {
            const V<A> z = load<A>(y + c, count - c);
            const V<A> p = logistic ? 1 / (1 + exponential(-z)) : z;
            A errors[lanes];
            store(errors, p - load<A>(target + c, count - c));
            const V<A> error = load<A>(errors, count - c);
            total += error * error;
            V<A> slope = error * scale;
            if (logistic) slope *= p * (1 - p);
            if (relu) slope = z <= 0 ? V<A>{} : slope;
            store<A>(slopes + c, slope, count - c);
        }
        return total;
    }
};

template <class S>
void train(const S* x, const typename Term<S>::A* target, int64_t rows, const Chain<S>& chain,
           typename Term<S>::A* loss, S* dx, typename Term<S>::A* gradients, int threads) {
    typedef typename Term<S>::A A;
    constexpr int64_t lanes = Vector<A>::lanes;
    const auto& products = chain.products;
    const int64_t last = products.size() - 1, numbers = rows * chain.y_size, size = chain.sums_size;
    S* packed = scratch<kPacked, S>(chain.packed_size);
    A* shifts = scratch<kShifts, A>(chain.shifts_size);
    A* sums = scratch<kWeightSums, A>(threads * size);
#pragma omp parallel num_threads(threads)
    {
        for (const auto& p : products) {
            pack(p.w, p.in, p.out, p.by_row, p.by_column, p.panels, packed + p.right_at);
            pack(p.w, p.out, p.in, p.by_column, p.by_row, p.into, packed + p.turned_at);
#pragma omp for schedule(static) nowait
            for (int64_t c = 0; c < (p.bias ? p.out : 0); c++)
                store<A>(shifts + p.shift_at + c, load<A>(p.bias + c % (p.out / p.taps), 1), 1);
        }
#pragma omp barrier
        const int64_t thread = omp_get_thread_num(), all = omp_get_num_threads();
        const Share share(rows, kSums, thread, all);
        S* outputs = scratch<kOutputs, S>(chain.outputs_size);
        S* slopes[2] = {scratch<kSlopes, S>(chain.widest), scratch<kOtherSlopes, S>(chain.widest)};
        S* left = scratch<kLeftPairs, S>(chain.left_size);
        S* right = scratch<kRightPairs, S>(chain.right_size);
        A* mine = sums + thread * size;
        std::memset(mine, 0, size * sizeof(A));
        V<A> losses{};
        const int64_t bands = (share.to - share.from + chain.band - 1) / chain.band;
        for (int64_t number = 0; number < bands; number++) {
            const Share of_band(share.to - share.from, kSums, number, bands);
            const int64_t first = share.from + of_band.from, count = of_band.to - of_band.from;
            const S* begin = x + first * chain.x_size;
            if (count % kSums) {  // a product would look behind the end of x
                S* copy = scratch<kBandOfX, S>((chain.band + kSums) * chain.x_size);
                std::memcpy((void*)copy, begin, count * chain.x_size * sizeof(S));
                begin = copy;
            }
            const auto input_of = [&](int64_t i) { return i ? outputs + products[i - 1].outputs_at : begin; };
            for (int64_t i = 0; i <= last; i++) {
                const auto& p = products[i];
                multiply_by(p.panels)(input_of(i), p.in, count * p.rows, packed + p.right_at, p.panels,
                                      p.bias ? shifts + p.shift_at : nullptr, p.relu, nullptr, outputs + p.outputs_at,
                                      p.out);
            }
            S* g = slopes[0];
            losses += chain.loss(outputs + products[last].outputs_at, target + first * chain.y_size, count * chain.y_size,
                                 A(2) / numbers, products[last].relu, g);
            for (int64_t i = last; i >= 0; i--) {
                const auto& p = products[i];
                const int64_t patches = count * p.rows, columns = p.weight_panels.columns();
                const S* a = input_of(i);
                const auto pack_left = [&](const S* from, A* sum) {
                    pack_rows(from, patches, p.weight_rows(), p.weight_rows(), p.left_width(), 0, p.left_width(), left, sum);
                };
                const auto pack_right = [&](const S* from, A* sum) {
                    pack_rows(from, patches, p.weight_columns(), p.weight_columns(), p.weight_panels.width, 0, columns,
                              right, sum);
                };
                A* bias = p.bias ? mine + p.bias_at : nullptr;
                p.across ? pack_left(g, bias) : pack_left(a, nullptr);
                p.across ? pack_right(a, nullptr) : pack_right(g, bias);
                multiply_turned_by(p.weight_panels)(left, p.weight_rows(), p.left_width(), right, p.weight_panels,
                                                    steps_of<S>(patches), mine + p.sums_at);
                if (!i && !dx) break;
                S* next = i ? slopes[(last - i + 1) % 2] : dx + first * chain.x_size;
                const S* mask = i && products[i - 1].relu ? a : nullptr;
                multiply_by(p.into)(g, p.out, patches, packed + p.turned_at, p.into, nullptr, false, mask, next, p.in);
                g = next;
            }
        }
        store(mine + chain.losses_at, losses);
#pragma omp barrier
        for (const auto& p : products) {
            add_up(sums + p.sums_at, size, all, p.weight_rows(), p.weight_columns(), p.weight_panels.columns(),
                   p.across != p.turned, gradients + p.gradient_at);
            const int64_t channels = p.out / p.taps;
#pragma omp for schedule(static) nowait
            for (int64_t c = 0; c < (p.bias ? channels : 0); c++) {
                A total{};
                for (int64_t tap = 0; tap < p.taps; tap++)
                    for (int64_t k = 0; k < all; k++) total += sums[k * size + p.bias_at + tap * channels + c];
                gradients[p.gradient_at + p.in * p.out + c] = total;
            }
        }
#pragma omp single
        {
            A total{};
            for (int64_t k = 0; k < all; k++)
                for (int64_t i = 0; i < lanes; i++) total += sums[k * size + chain.losses_at + i];
            *loss = total / numbers;
        }
    }
}

}  // namespace

// `steps` are the numbers of each Product in order; weights and biases addresses, 0 for no bias. x and target are dense,
// `rows` coarsest patches; `gradients` takes each product's dw and db, one behind the other. dx may be left out.
#define EXPORT(NAME, S, A)                                                                                            \
    extern "C" void train_##NAME(const S* x, const A* target, int64_t rows, int64_t count, const int64_t* steps,      \
                                 const int64_t* weights, const int64_t* biases, int64_t logistic, A* loss, S* dx,     \
                                 A* gradients, int64_t threads) {                                                     \
        train<S>(x, target, rows, Chain<S>(count, steps, weights, biases, logistic != 0), loss, dx, gradients,        \
                 threads);                                                                                            \
    }

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, bfloat16, float)
