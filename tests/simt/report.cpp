// Findings: what was wrong, in which thread, at which line.
#include <dlfcn.h>

#include <cstdarg>
#include <cstdio>
#include <map>
#include <set>

#include "internal.h"

namespace simt {

namespace {

constexpr std::size_t kMostText = 64 << 10;

struct Place {
  std::string file;
  int line;
};
std::map<std::pair<std::string, int>, Place> places;
std::set<const void*> place_set;
std::set<std::pair<std::string, std::string>> seen;
std::string text;
int count = 0;
cudaError_t last_error = cudaSuccess;

// The answer of addr2line for an address in the code of this library: function, then file:line.
std::pair<std::string, std::string> look_up(const void* address) {
  static std::map<const void*, std::pair<std::string, std::string>> cache;
  auto found = cache.find(address);
  if (found != cache.end()) return found->second;
  Dl_info info;
  std::pair<std::string, std::string> answer{"?", "?"};
  if (address && dladdr(address, &info) && info.dli_fname) {
    const auto offset = static_cast<const char*>(address) - static_cast<char*>(info.dli_fbase);
    const std::string command =
        format("addr2line -Cfse '%s' %#lx 2>/dev/null", info.dli_fname, offset);
    if (FILE* pipe = popen(command.c_str(), "r")) {
      char line[1024];
      for (std::string* part : {&answer.first, &answer.second})
        if (fgets(line, sizeof line, pipe)) *part = std::string(line, std::strcspn(line, "\n"));
      pclose(pipe);
    }
  }
  return cache[address] = answer;
}

}  // namespace

std::string format(const char* pattern, ...) {
  char line[2048];
  va_list arguments;
  va_start(arguments, pattern);
  vsnprintf(line, sizeof line, pattern, arguments);
  va_end(arguments);
  return line;
}

const void* place_of(const char* file, int line) {
  static std::map<std::pair<const char*, int>, const void*> fast;
  const void*& place = fast[{file, line}];
  if (!place) {
    const char* name = std::strrchr(file, '/');
    place = &(places[{file, line}] = {name ? name + 1 : file, line});
    place_set.insert(place);
  }
  return place;
}

std::string describe(const void* place) {
  if (place_set.count(place)) {
    const Place& p = *static_cast<const Place*>(place);
    return p.file + ":" + std::to_string(p.line);
  }
  // A return address is one past its call.
  return look_up(static_cast<const char*>(place) - 1).second;
}

std::string function_name(const void* function) {
  std::string name = look_up(function).first;
  for (const char* part : {"(anonymous namespace)::", "convlet::cuda::", "convlet::"})
    for (std::size_t at; (at = name.find(part)) != std::string::npos;)
      name.erase(at, std::strlen(part));
  int depth = 0;  // of template arguments
  for (std::size_t i = 0; i < name.size(); ++i) {
    depth += (name[i] == '<') - (name[i] == '>');
    if (name[i] == '(' && depth == 0) return name.substr(0, i);
  }
  return name;
}

void report(const char* kind, const void* place, const std::string& message) {
  ++count;
  const std::string where = place ? describe(place) : "";
  if (!seen.insert({kind, where.empty() ? message : where}).second || text.size() > kMostText)
    return;
  text += format("simt: %s: %s", kind, message.c_str());
  if (!where.empty()) text += " at " + where;
  if (running)
    text += format(" [block %u,%u,%u thread %u,%u,%u]", blockIdx.x, blockIdx.y, blockIdx.z,
                   threadIdx.x, threadIdx.y, threadIdx.z);
  text += '\n';
}

int findings() {
  return count;
}

cudaError_t note(cudaError_t error) {
  return last_error = error;
}

}  // namespace simt

cudaError_t cudaGetLastError() {
  std::lock_guard<std::recursive_mutex> lock(simt::mutex);
  cudaError_t error = simt::last_error;
  simt::last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorLaunchFailure:
      return "the emulator has found an error in a kernel";
    default:
      return "the emulator has refused a call";
  }
}

// ---------------------------------------------------------------- for the tests

extern "C" {

#define SIMT_EXPORT __attribute__((visibility("default")))

SIMT_EXPORT void simt_options(int seed, int async, int check, int count) {
  std::lock_guard<std::recursive_mutex> lock(simt::mutex);
  simt::run_all_streams();
  simt::options = {seed, static_cast<simt::Async>(async), check != 0, count != 0};
}

// What has been found since the last call of simt_reset: a line for each kind and place.
SIMT_EXPORT int simt_findings() {
  std::lock_guard<std::recursive_mutex> lock(simt::mutex);
  simt::run_all_streams();
  return simt::count;
}
SIMT_EXPORT const char* simt_report() {
  std::lock_guard<std::recursive_mutex> lock(simt::mutex);
  simt::run_all_streams();
  return simt::text.c_str();
}
SIMT_EXPORT void simt_reset() {
  std::lock_guard<std::recursive_mutex> lock(simt::mutex);
  simt::count = 0;
  simt::text.clear();
  simt::seen.clear();
  simt::last_error = cudaSuccess;
}
}
