#include "core/error.h"
#include "cuda/tensor_map.h"

namespace convlet::cuda {
namespace {

// The driver's functions: found when they are first needed, so that nothing links with the driver.
template <class Function>
Function* driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
#if defined(CUDART_VERSION) && CUDART_VERSION < 12050
  const cudaError_t error = cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, &found);
#else
  constexpr unsigned kFirstVersion = 12000;  // of CUDA that has them
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &function, kFirstVersion, cudaEnableDefault, &found);
#endif
  if (error != cudaSuccess) cudaGetLastError();
  return error == cudaSuccess && found == cudaDriverEntryPointSuccess
             ? reinterpret_cast<Function*>(function)
             : nullptr;
}

auto* encode_tiled() {
  static auto* encode = driver_function<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  return encode;
}
auto* encode_im2col() {
  static auto* encode =
      driver_function<decltype(cuTensorMapEncodeIm2col)>("cuTensorMapEncodeIm2col");
  return encode;
}

constexpr cuuint64_t kElement = 2;  // bytes

cuuint64_t bytes(std::int64_t elements) {
  return static_cast<cuuint64_t>(elements) * kElement;
}

CUtensorMapSwizzle driver_swizzle(Swizzle swizzle) {
  return static_cast<CUtensorMapSwizzle>(swizzle);
}

void check_map(CUresult result) {
  if (result != CUDA_SUCCESS)
    value_error("cuda: the driver refuses a tensor map (error ", static_cast<int>(result), ")");
}

// From the last pixel of an image to the last window's.
std::int64_t last_corner(std::int64_t first, std::int64_t step, std::int64_t count,
                         std::int64_t size) {
  return first + step * (count - 1) - (size - 1);
}

}  // namespace

bool has_maps() {
  return encode_tiled() && encode_im2col();
}

bool has_map(const Windows& w, std::int64_t most_offset_h, std::int64_t most_offset_w) {
  auto is_corner = [](std::int64_t n) { return n >= -128 && n <= 127; };
  auto is_axis = [&](std::int64_t first, std::int64_t step, std::int64_t count, std::int64_t size,
                     std::int64_t most_offset) {
    return step <= 8 && most_offset <= 255 && is_corner(first) &&
           is_corner(last_corner(first, step, count, size));
  };
  return is_axis(w.first_h, w.step_h, w.rows, w.height, most_offset_h) &&
         is_axis(w.first_w, w.step_w, w.columns, w.width, most_offset_w);
}

CUtensorMap make_map(const void* data, const Box& box) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(box.x), static_cast<cuuint64_t>(box.y),
                              static_cast<cuuint64_t>(box.z)};
  const cuuint64_t strides[] = {bytes(box.row), bytes(box.row * box.y)};
  const cuuint32_t box_sizes[] = {static_cast<cuuint32_t>(box.box_x),
                                  static_cast<cuuint32_t>(box.box_y), 1};
  const cuuint32_t steps[] = {1, 1, 1};
  CUtensorMap map;
  check_map(encode_tiled()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data),
                           sizes, strides, box_sizes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                           driver_swizzle(box.swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                           CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  return map;
}

CUtensorMap make_map(const void* data, const Windows& w) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(w.channels), static_cast<cuuint64_t>(w.width),
                              static_cast<cuuint64_t>(w.height), static_cast<cuuint64_t>(w.images)};
  const cuuint64_t strides[] = {bytes(w.pixel), bytes(w.pixel * w.width),
                                bytes(w.pixel * w.width * w.height)};
  // W first, in the order of the sizes, as CUTLASS and Triton pass them; cuda.h says "DHW".
  const int lower[] = {static_cast<int>(w.first_w), static_cast<int>(w.first_h)};
  const int upper[] = {static_cast<int>(last_corner(w.first_w, w.step_w, w.columns, w.width)),
                       static_cast<int>(last_corner(w.first_h, w.step_h, w.rows, w.height))};
  const cuuint32_t steps[] = {1, static_cast<cuuint32_t>(w.step_w),
                              static_cast<cuuint32_t>(w.step_h), 1};
  CUtensorMap map;
  check_map(encode_im2col()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(data),
                            sizes, strides, lower, upper, static_cast<cuuint32_t>(w.box_channels),
                            static_cast<cuuint32_t>(w.box_pixels), steps,
                            CU_TENSOR_MAP_INTERLEAVE_NONE, driver_swizzle(w.swizzle),
                            CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  return map;
}

}  // namespace convlet::cuda
