// Vectors of numbers, as wide as the machine's registers, and how they lie in memory.
//
// S is a type in memory, A the one that is computed in: float for bfloat16, else the same.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int64_t kBytes = 64;  // of a vector
#elif defined(__AVX__)
constexpr int64_t kBytes = 32;
#else
constexpr int64_t kBytes = 16;
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int64_t kSums = 24;  // sums that fit into registers, beside what is added to them
#else
constexpr int64_t kSums = 12;
#endif

template <class A>
struct Vector {
    typedef A type __attribute__((vector_size(kBytes)));
    static constexpr int64_t lanes = kBytes / sizeof(A);
};

template <class A>
using V = typename Vector<A>::type;

inline int64_t rounded_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// Channels in a row of a buffer: whole lines of 64 bytes, so that it looks alike on every machine.
template <class A>
int64_t padded(int64_t channels) {
    return rounded_up(channels, 64 / sizeof(A));
}

// ---- memory: float and double as they are, bfloat16 as the upper half of a float --------------------------

struct bfloat16 {
    uint16_t bits;
};

inline V<float> load(const float* from) {
    V<float> x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline V<double> load(const double* from) {
    V<double> x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline void store(float* to, V<float> x) { std::memcpy(to, &x, sizeof x); }
inline void store(double* to, V<double> x) { std::memcpy(to, &x, sizeof x); }

typedef uint16_t Halves __attribute__((vector_size(kBytes / 2)));
typedef uint32_t Words __attribute__((vector_size(kBytes)));

inline V<float> load(const bfloat16* from) {
    Halves half;
    std::memcpy(&half, from, sizeof half);
    return (V<float>)(__builtin_convertvector(half, Words) << 16);
}

// To the nearest, ties to even; NaN stays NaN.
inline void store(bfloat16* to, V<float> x) {
#if defined(__AVX512BF16__)
    const __m256bh half = _mm512_cvtneps_pbh((__m512)x);
#else
    const Words bits = (Words)x, high = bits >> 16;
    const Words rounded = x == x ? (bits + 0x7fff + (high & 1)) >> 16 : high | 0x40;
    const Halves half = __builtin_convertvector(rounded, Halves);
#endif
    std::memcpy(to, &half, sizeof half);
}

// The first `count` lanes, zero behind them.
template <class A, class S>
inline V<A> load(const S* from, int64_t count) {
    if (count >= Vector<A>::lanes) return load(from);
    S some[Vector<A>::lanes] = {};
    if (count > 0) std::memcpy(some, from, count * sizeof(S));
    return load(some);
}

template <class A, class S>
inline void store(S* to, V<A> x, int64_t count) {
    if (count >= Vector<A>::lanes) return store(to, x);
    S some[Vector<A>::lanes];
    store(some, x);
    std::memcpy(to, some, count * sizeof(S));
}

#if defined(__AVX512BW__) && defined(__AVX512VL__)  // by masks, where there are some
inline uint16_t first_lanes(int64_t count) { return count >= 16 ? 0xffff : count > 0 ? (1u << count) - 1 : 0; }

template <>
inline V<float> load<float>(const float* from, int64_t count) {
    return (V<float>)_mm512_maskz_loadu_ps(first_lanes(count), from);
}

template <>
inline V<float> load<float>(const bfloat16* from, int64_t count) {
    const Halves half = (Halves)_mm256_maskz_loadu_epi16(first_lanes(count), from);
    return (V<float>)(__builtin_convertvector(half, Words) << 16);
}

template <>
inline void store<float>(float* to, V<float> x, int64_t count) {
    _mm512_mask_storeu_ps(to, first_lanes(count), (__m512)x);
}

template <>
inline void store<float>(bfloat16* to, V<float> x, int64_t count) {
    Halves half;
    store(reinterpret_cast<bfloat16*>(&half), x);
    _mm256_mask_storeu_epi16(to, first_lanes(count), (__m256i)half);
}
#endif

// Memory that a thread keeps from call to call, one piece for each purpose; what is in it is anything.
template <int purpose, class A>
A* scratch(int64_t count) {
    static thread_local struct Piece {
        void* data = nullptr;
        int64_t size = 0;
        ~Piece() { std::free(data); }
    } piece;
    const int64_t size = rounded_up(count * sizeof(A), 64);
    if (size > piece.size) {
        std::free(piece.data);
        piece.data = std::aligned_alloc(64, size);
        piece.size = size;
    }
    return static_cast<A*>(piece.data);
}

// The part of `total` things that one of several threads works on, in whole units but for the end.
struct Share {
    int64_t from, to;
    Share(int64_t total, int64_t unit, int64_t thread, int64_t threads) {
        const int64_t units = (total + unit - 1) / unit;
        from = std::min(total, units * thread / threads * unit);
        to = std::min(total, units * (thread + 1) / threads * unit);
    }
};
