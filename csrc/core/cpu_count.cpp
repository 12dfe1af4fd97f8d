#include "core/cpu_count.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "core/error.h"
#include "core/thread_pool.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace convlet {
namespace {

// quota / period of one control group's files; 0 when they are absent or say "no limit".
double quota_v2(const std::string& directory) {
  std::ifstream file(directory + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::atof(quota.c_str()) / period;
}

double quota_v1(const std::string& directory) {
  std::ifstream quota_file(directory + "/cpu.cfs_quota_us");
  std::ifstream period_file(directory + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

// The smallest limit of the group at `path` below `mount` and of its parents. In a container the
// path may be the host's while the mount shows the container's own group: the parents end at the
// mount.
template <class Quota>
double smallest_quota(const std::string& mount, std::string path, Quota quota) {
  double smallest = 0;
  for (;;) {
    double limit = quota(mount + path);
    if (limit > 0) smallest = smallest > 0 ? std::min(smallest, limit) : limit;
    std::size_t slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) return smallest;
    path.erase(slash);
  }
}

bool contains_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

}  // namespace

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#if defined(__linux__)
  // The mask must be as large as the kernel's; grow it until it is.
  for (int size = CPU_SETSIZE; size <= (1 << 16); size *= 2) {
    cpu_set_t* set = CPU_ALLOC(size);
    std::size_t bytes = CPU_ALLOC_SIZE(size);
    bool known = sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; known && cpu < size; ++cpu)
      if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
    CPU_FREE(set);
    if (known) break;
  }
#endif
  return cpus;
}

double cpu_quota() {
  double smallest = 0;
  std::ifstream groups("/proc/self/cgroup");  // lines "id:controllers:path"; v2 has no controllers
  for (std::string line; std::getline(groups, line);) {
    std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    double limit = 0;
    if (controllers.empty()) {
      limit = smallest_quota("/sys/fs/cgroup", path, quota_v2);
    } else if (contains_word(controllers, "cpu")) {
      limit = smallest_quota("/sys/fs/cgroup/cpu", path, quota_v1);
    }
    if (limit > 0) smallest = smallest > 0 ? std::min(smallest, limit) : limit;
  }
  return smallest;
}

int default_threads() {
  if (const char* text = std::getenv("CONVLET_NUM_THREADS")) {
    std::istringstream stream(text);
    int threads = 0;
    if (!(stream >> threads) || !(stream >> std::ws).eof() || threads < 1 ||
        threads > ThreadPool::kMaxThreads)
      value_error("CONVLET_NUM_THREADS: expected a whole number from 1 to ",
                  ThreadPool::kMaxThreads, ", got '", text, "'");
    return threads;
  }
  int threads = static_cast<int>(allowed_cpus().size());
  if (threads == 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  double quota = cpu_quota();
  if (quota > 0) threads = std::min(threads, static_cast<int>(std::ceil(quota)));
  return std::clamp(threads, 1, static_cast<int>(ThreadPool::kMaxThreads));
}

}  // namespace convlet
