// How many CPUs this process may use at once.
#pragma once
#include <vector>

namespace convlet {

// The CPUs of the calling thread's affinity mask, in ascending order; empty where the system cannot
// say.
std::vector<int> allowed_cpus();

// The CPU time that the process' control groups (v1 or v2) grant, in CPUs: the smallest quota /
// period on the way up to the root; 0 when there is no limit.
double cpu_quota();

// CONVLET_NUM_THREADS if it is set (ValueError unless it is a whole number of at least 1), else the
// number of allowed CPUs but no more than the quota, rounded up.
int default_threads();

}  // namespace convlet
