// The emulated twins of csrc/cuda/ptx.cuh: the same names, the same meaning, the same bits, but for
// the order in which a tensor core adds up (here: k ascending, every sum rounded).
#pragma once
#include "simt.h"

namespace simt {

struct MatrixRows {
  const std::uint16_t* row;
  std::uint32_t* result;
};

template <bool transposed>
SIMT_UNCHECKED inline void load_matrix_x4(std::uint32_t* result, const void* row, const char* file,
                                          int line) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16)
    fail("%s:%d: the row of a matrix is not aligned to 16 bytes", file, line);
  access(row, 16, Access::read, place_of(file, line));
  MatrixRows mine{static_cast<const std::uint16_t*>(row), result};
  collective(
      0xffffffffu, Collective::load_matrix, &mine,
      [](void** arguments, unsigned) {
        for (int matrix = 0; matrix < 4; ++matrix) {
          auto at = [&](int i, int j) -> std::uint32_t {
            return static_cast<MatrixRows*>(arguments[8 * matrix + i])->row[j];
          };
          for (int lane = 0; lane < 32; ++lane) {
            const int i = lane / 4, j = lane % 4 * 2;
            const std::uint32_t low = transposed ? at(j, i) : at(i, j);
            const std::uint32_t high = transposed ? at(j + 1, i) : at(i, j + 1);
            static_cast<MatrixRows*>(arguments[lane])->result[matrix] = low | high << 16;
          }
        }
      },
      file, line);
}

struct Mma {
  float* d;
  const std::uint32_t* a;
  std::uint32_t b[2];
};

// K is 16 for bfloat16, two to a register, and 8 for tf32.
template <int K>
SIMT_UNCHECKED inline void mma(float* d, const std::uint32_t* a, std::uint32_t b0, std::uint32_t b1,
                               const char* file, int line) {
  Mma mine{d, a, {b0, b1}};
  collective(
      0xffffffffu, Collective::mma, &mine,
      [](void** arguments, unsigned) {
        float A[16][K], B[K][8], D[16][8];
        auto put = [](float* to, int stride, std::uint32_t bits) {
          if (K == 16) {
            to[0] = __uint_as_float(bits << 16);
            to[stride] = __uint_as_float(bits & 0xffff0000u);
          } else {
            to[0] = __uint_as_float(bits & 0xffffe000u);
          }
        };
        constexpr int wide = K == 16 ? 2 : 1, half = K / 2;
        for (int lane = 0; lane < 32; ++lane) {
          const Mma& m = *static_cast<Mma*>(arguments[lane]);
          const int g = lane / 4, t = lane % 4;
          for (int r = 0; r < 4; ++r) {
            put(&A[g + r % 2 * 8][wide * t + r / 2 * half], 1, m.a[r]);
            D[g + r / 2 * 8][2 * t + r % 2] = m.d[r];
          }
          for (int r = 0; r < 2; ++r) put(&B[wide * t + r * half][g], 8, m.b[r]);
        }
        for (int i = 0; i < 16; ++i)
          for (int k = 0; k < K; ++k)
            for (int j = 0; j < 8; ++j) D[i][j] += A[i][k] * B[k][j];
        for (int lane = 0; lane < 32; ++lane)
          for (int r = 0; r < 4; ++r)
            static_cast<Mma*>(arguments[lane])->d[r] =
                D[lane / 4 + r / 2 * 8][2 * (lane % 4) + r % 2];
      },
      file, line);
}

}  // namespace simt

namespace convlet::cuda {

inline void copy_async_16(void* shared, const void* global, bool valid, SIMT_HERE) {
  simt::copy_async(shared, global, 16, valid, simt::place_of(file, line));
}
inline void copy_async_8(void* shared, const void* global, bool valid, SIMT_HERE) {
  simt::copy_async(shared, global, 8, valid, simt::place_of(file, line));
}
inline void copy_async_4(void* shared, const void* global, bool valid, SIMT_HERE) {
  simt::copy_async(shared, global, 4, valid, simt::place_of(file, line));
}
inline void copy_async_commit() {
  simt::copy_async_commit();
}
template <int N>
void copy_async_wait() {
  simt::copy_async_wait(N);
}
inline void load_matrix_x4(std::uint32_t (&r)[4], const void* row, SIMT_HERE) {
  simt::load_matrix_x4<false>(r, row, file, line);
}
inline void load_matrix_x4_transposed(std::uint32_t (&r)[4], const void* row, SIMT_HERE) {
  simt::load_matrix_x4<true>(r, row, file, line);
}
inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                     SIMT_HERE) {
  simt::mma<16>(d, a, b0, b1, file, line);
}
inline void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                     SIMT_HERE) {
  simt::mma<8>(d, a, b0, b1, file, line);
}
inline std::uint32_t to_tf32(float x) {
  const std::uint32_t bits = __float_as_uint(x);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
}

}  // namespace convlet::cuda
