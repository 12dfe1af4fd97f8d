#include "cpu/table.h"

#include <atomic>
#include <cstdlib>

#include "core/error.h"

namespace convlet::cpu {
namespace {

struct Choice {
  const char* name;
  bool supported;
  const Kernels& (*table)();
};

// Slowest first. __builtin_cpu_supports also asks whether the operating system saves the registers.
const std::vector<Choice>& choices() {
  static const std::vector<Choice> all = {
      {"baseline", true, table_baseline},
#if defined(__x86_64__)
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), table_avx2},
      {"avx512",
       __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"),
       table_avx512},
#elif defined(__aarch64__)
      {"neon", true, table_neon},
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

}  // namespace convlet::cpu
