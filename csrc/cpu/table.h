// The tables of kernels that this build has for the CPU, and the choice among them at run time.
#pragma once
#include <string>
#include <vector>

#include "core/device.h"
#include "ops/kernels.h"

// Whether the compiler knows the instructions of AVX512-BF16.
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 9 : __GNUC__ >= 10)
#define CONVLET_AVX512_BF16
#endif

namespace convlet::cpu {

const Kernels& table_baseline();
const Kernels& table_baseline_emulated_bfloat16();
#if defined(__x86_64__)
const Kernels& table_avx2();
const Kernels& table_avx2_emulated_bfloat16();
const Kernels& table_avx512();
const Kernels& table_avx512_emulated_bfloat16();
#elif defined(__aarch64__)
const Kernels& table_neon();
const Kernels& table_neon_emulated_bfloat16();
#endif
#if defined(CONVLET_AVX512_BF16)
const Kernels& table_avx512bf16();
#endif

// The names of the tables that this machine can run, slowest first.
std::vector<std::string> supported_isas();

// The table called `name`; ValueError that lists the choices when this machine or build lacks it.
const Kernels& table_named(const std::string& name);

// The table in use: the one that set_table chose, else the one that CONVLET_ISA names (ValueError
// as for table_named), else the fastest one supported.
const Kernels& table();
void set_table(const std::string& name);

// The same for a table that is not of this build; it must stay where it is.
void use_table(const Kernels& table);
// The table for a precision: table() for float32. That for bfloat16 needs AVX512-BF16, that table()
// is the one for AVX-512, and that its products have been measured to pay, unless set_bfloat16 says
// otherwise. ValueError with the reason and the fix.
const Kernels& table(Precision precision);

// Where bfloat16 comes from; at first what CONVLET_BFLOAT16 says, else "measured": from the
// instructions where they pay. "native": also where they do not. "emulated": from other
// instructions, slowly, to study the effect of rounding on any machine.
void set_bfloat16(const std::string& source);

// How many times as fast as float32's the products of a table are, in registers, on one thread: the
// best of 20 runs of about 0.1 ms of each, in turns.
double product_gain(const Kernels& kernels, const Kernels& float32);

}  // namespace convlet::cpu
