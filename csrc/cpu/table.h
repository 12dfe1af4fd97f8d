// The tables of kernels that this build has for the CPU, and the choice among them at run time.
#pragma once
#include <string>
#include <vector>

#include "ops/kernels.h"

namespace convlet::cpu {

const Kernels& table_baseline();
#if defined(__x86_64__)
const Kernels& table_avx2();
const Kernels& table_avx512();
#elif defined(__aarch64__)
const Kernels& table_neon();
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

}  // namespace convlet::cpu
