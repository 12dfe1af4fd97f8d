#include "cpu/table.h"

#include <atomic>
#include <cstdlib>

#include "core/error.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace convlet::cpu {
namespace {

struct Choice {
  const char* name;
  bool supported;
  const Kernels& (*table)();
  const Kernels& (*emulated_bfloat16)();
};

// Slowest first. __builtin_cpu_supports also asks whether the operating system saves the registers.
const std::vector<Choice>& choices() {
  static const std::vector<Choice> all = {
      {"baseline", true, table_baseline, table_baseline_emulated_bfloat16},
#if defined(__x86_64__)
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), table_avx2,
       table_avx2_emulated_bfloat16},
      {"avx512",
       __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"),
       table_avx512, table_avx512_emulated_bfloat16},
#elif defined(__aarch64__)
      {"neon", true, table_neon, table_neon_emulated_bfloat16},
#endif
  };
  return all;
}

// `what` is the name of the setting in the message.
const Kernels& find(const char* what, const std::string& name) {
  std::string supported, why = "no such instruction set";
  for (const Choice& choice : choices()) {
    if (choice.supported && name == choice.name) return choice.table();
    if (choice.supported) supported += (supported.empty() ? "" : ", ") + std::string(choice.name);
    if (name == choice.name) why = "this machine cannot run it";
  }
  value_error(what, ": expected one of ", supported, ", got '", name, "' (", why, ")");
}

const Kernels& initial_table() {
  if (const char* name = std::getenv("CONVLET_ISA")) return find("CONVLET_ISA", name);
  return find("isa", supported_isas().back());
}

std::atomic<const Kernels*> current{nullptr};

bool has_avx512bf16() {
#if defined(CONVLET_AVX512_BF16)
  unsigned eax, ebx, ecx, edx;
  constexpr unsigned kBfloat16 = 1u << 5;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & kBfloat16);
#else
  return false;
#endif
}

enum class Bfloat16 { unset, native, emulated };
std::atomic<Bfloat16> bfloat16_source{Bfloat16::unset};

Bfloat16 bfloat16_named(const char* what, const std::string& name) {
  if (name == "native") return Bfloat16::native;
  if (name == "emulated") return Bfloat16::emulated;
  value_error(what, ": expected \"native\" or \"emulated\", got \"", name, '"');
}

bool emulates_bfloat16() {
  Bfloat16 source = bfloat16_source.load();
  if (source == Bfloat16::unset) {
    const char* name = std::getenv("CONVLET_BFLOAT16");
    const Bfloat16 initial = name ? bfloat16_named("CONVLET_BFLOAT16", name) : Bfloat16::native;
    if (bfloat16_source.compare_exchange_strong(source, initial)) source = initial;
  }
  return source == Bfloat16::emulated;
}

[[noreturn]] void refuse(Precision precision, const std::string& reason) {
  value_error("precision \"", name_of(precision), "\" cannot be had on the CPU: ", reason,
              "; use precision=\"float32\"");
}

const Kernels& bfloat16_table() {
  const Kernels* kernels = &table();
  if (emulates_bfloat16())
    for (const Choice& choice : choices())
      if (kernels == &choice.table()) return choice.emulated_bfloat16();
#if defined(CONVLET_AVX512_BF16)
  if (has_avx512bf16() && kernels == &table_avx512()) return table_avx512bf16();
#endif
  refuse(Precision::bfloat16,
         concat("it needs AVX512-BF16 instructions, which ",
                has_avx512bf16() ? "are left out by the choice of " : "this CPU lacks: it runs ",
                kernels->name));
}

}  // namespace

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Choice& choice : choices())
    if (choice.supported) names.push_back(choice.name);
  return names;
}

const Kernels& table_named(const std::string& name) {
  return find("isa", name);
}

const Kernels& table() {
  const Kernels* kernels = current.load(std::memory_order_acquire);
  if (!kernels) {
    const Kernels* initial = &initial_table();
    if (current.compare_exchange_strong(kernels, initial)) kernels = initial;
  }
  return *kernels;
}

void set_table(const std::string& name) {
  use_table(table_named(name));
}

void use_table(const Kernels& table) {
  current.store(&table);
}

const Kernels& table(Precision precision) {
  if (precision == Precision::bfloat16) return bfloat16_table();
  if (precision == Precision::tf32) refuse(precision, "it needs an NVIDIA GPU");
  return table();
}

void set_bfloat16(const std::string& source) {
  bfloat16_source.store(bfloat16_named("set_bfloat16", source));
}

}  // namespace convlet::cpu
