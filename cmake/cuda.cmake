# Adds csrc/cuda to convlet_core, with machine code for every supported architecture and PTX of the
# newest; or says in one line why not. The run-time library is linked in, the driver is found when
# the program runs, so the result works on machines without a GPU.
if(NOT CONVLET_CUDA MATCHES "^(ON|OFF|AUTO)$")
  message(FATAL_ERROR "CONVLET_CUDA: expected ON, OFF or AUTO, got ${CONVLET_CUDA}")
endif()
if(CONVLET_CUDA STREQUAL "OFF")
  message(STATUS "CUDA: not built (CONVLET_CUDA=OFF)")
  return()
endif()
if(CONVLET_SANITIZE AND CONVLET_CUDA STREQUAL "AUTO")
  message(STATUS "CUDA: not built with sanitizers (tests/simt checks its kernels)")
  return()
endif()

include(CheckLanguage)
set(CMAKE_CUDA_ARCHITECTURES OFF)  # set below, when the compiler's version is known
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(CONVLET_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CUDA: no working nvcc was found and CONVLET_CUDA=ON; "
      "put it on the PATH or set CUDACXX, or build with -DCONVLET_CUDA=OFF")
  endif()
  message(STATUS "CUDA: not built, no working nvcc was found (docs/cuda.md says how to get one)")
  return()
endif()
enable_language(CUDA)
# In NVIDIA's wheels the shared library has its version in its name, and CMake does not find it
# (only the static one is linked).
set(toolkit ${CMAKE_CUDA_COMPILER_TOOLKIT_ROOT})
file(GLOB versioned_cudart ${toolkit}/lib/libcudart.so.*)
if(versioned_cudart AND NOT EXISTS ${toolkit}/lib/libcudart.so)
  list(GET versioned_cudart 0 versioned_cudart)
  set(CUDA_CUDART ${versioned_cudart} CACHE FILEPATH "The shared CUDA run-time library")
endif()
find_package(CUDAToolkit QUIET)
foreach(path ${CUDAToolkit_INCLUDE_DIRS})
  if(NOT EXISTS ${path})  # of CUDA 13 they are a wheel of their own
    set(CUDAToolkit_FOUND FALSE)
  endif()
endforeach()
if(NOT CUDAToolkit_FOUND)
  set(reason "${CMAKE_CUDA_COMPILER} lacks the run-time library or headers (docs/cuda.md names the packages)")
  if(CONVLET_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CUDA: ${reason}")
  endif()
  message(STATUS "CUDA: not built, ${reason}")
  return()
endif()

if(CONVLET_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${CONVLET_CUDA_ARCHITECTURES})
elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90)
else()
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90-real 100-real 120)
endif()
set_target_properties(convlet_core PROPERTIES
  CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}"
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
message(STATUS "CUDA: built by nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")

file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/cuda/*.cu)
# As on the CPU: a fused multiply-add happens where a kernel writes one and nowhere else.
set(cuda_options
  "$<$<COMPILE_LANGUAGE:CUDA>:--fmad=false;--expt-relaxed-constexpr;-Xfatbin=-compress-all;-Xcompiler=-Wall>")

# What needs instructions that only sm_90a has is compiled for that alone; the device picks it.
set(sm90_sources ${CMAKE_SOURCE_DIR}/csrc/cuda/conv2d_sm90.cu)
list(REMOVE_ITEM cuda_sources ${sm90_sources})
add_library(convlet_sm90 OBJECT ${sm90_sources})
set_target_properties(convlet_sm90 PROPERTIES
  CUDA_ARCHITECTURES 90a-real POSITION_INDEPENDENT_CODE ON
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF CUDA_VISIBILITY_PRESET hidden)
target_include_directories(convlet_sm90 PRIVATE csrc)
target_compile_options(convlet_sm90 PRIVATE ${cuda_options})

target_sources(convlet_core PRIVATE ${cuda_sources} $<TARGET_OBJECTS:convlet_sm90>)
target_compile_options(convlet_core PRIVATE ${cuda_options})
target_compile_definitions(convlet_core PUBLIC CONVLET_CUDA)
target_link_libraries(convlet_core PUBLIC CUDA::cudart_static)
