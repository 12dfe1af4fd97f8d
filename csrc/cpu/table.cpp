#include "cpu/table.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"
#include "core/thread_pool.h"
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

enum class Bfloat16 { unset, measured, native, emulated };
std::atomic<Bfloat16> bfloat16_source{Bfloat16::unset};

Bfloat16 bfloat16_named(const char* what, const std::string& name) {
  if (name == "measured") return Bfloat16::measured;
  if (name == "native") return Bfloat16::native;
  if (name == "emulated") return Bfloat16::emulated;
  value_error(what, ": expected \"measured\", \"native\" or \"emulated\", got \"", name, '"');
}

Bfloat16 source_of_bfloat16() {
  Bfloat16 source = bfloat16_source.load();
  if (source == Bfloat16::unset) {
    const char* name = std::getenv("CONVLET_BFLOAT16");
    const Bfloat16 initial = name ? bfloat16_named("CONVLET_BFLOAT16", name) : Bfloat16::measured;
    if (bfloat16_source.compare_exchange_strong(source, initial)) source = initial;
  }
  return source;
}

[[noreturn]] void refuse(Precision precision, const std::string& reason) {
  value_error("precision \"", name_of(precision), "\" cannot be had on the CPU: ", reason,
              "; use precision=\"float32\"");
}

double product_rate(const Kernels& kernels) {
  const auto start = std::chrono::steady_clock::now();
  const double operations = kernels.fma_peak(ThreadPool::instance().team(1), 1);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return operations / seconds.count();
}

#if defined(CONVLET_AVX512_BF16)
// That a chip has the instructions does not say how fast they are: on some they multiply no faster
// than float32's, and the conversions come on top. Measured once, so that a process does not change
// its mind.
void require_gain() {
  constexpr double kLeastGain = 1.25;
  static const double gain = product_gain(table_avx512bf16(), table_avx512());
  if (gain >= kLeastGain) return;
  char text[16];
  std::snprintf(text, sizeof text, "%.1f", gain);
  refuse(Precision::bfloat16,
         concat("this CPU has AVX512-BF16, but its products were measured at ", text,
                " times the speed of float32's, which does not pay for the conversions "
                "(CONVLET_BFLOAT16=native takes it all the same)"));
}
#endif

const Kernels& bfloat16_table() {
  const Kernels* kernels = &table();
  const Bfloat16 source = source_of_bfloat16();
  if (source == Bfloat16::emulated)
    for (const Choice& choice : choices())
      if (kernels == &choice.table()) return choice.emulated_bfloat16();
#if defined(CONVLET_AVX512_BF16)
  if (has_avx512bf16() && kernels == &table_avx512()) {
    if (source == Bfloat16::measured) require_gain();
    return table_avx512bf16();
  }
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

double product_gain(const Kernels& kernels, const Kernels& float32) {
  double here = 0, there = 0;
  for (int run = 0; run < 20; ++run) {
    here = std::max(here, product_rate(kernels));
    there = std::max(there, product_rate(float32));
  }
  return here / there;
}

}  // namespace convlet::cpu
