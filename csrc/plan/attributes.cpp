// The typed getters of a node's attributes.
#include <utility>

#include "plan/graph.h"

namespace convlet {

const Attribute& Attributes::at(const char* name) const {
  auto found = values_.find(name);
  if (found == values_.end()) value_error(owner_, ": attribute '", name, "' is missing");
  return found->second;
}

void Attributes::wrong_type(const char* name, const char* expected) const {
  static const char* const kinds[] = {"a bool", "an integer", "a number", "a string",
                                      "a list of integers"};
  type_error(owner_, ": attribute '", name, "': expected ", expected, ", got ",
             kinds[at(name).index()]);
}

bool Attributes::boolean(const char* name, bool fallback) const {
  if (!has(name)) return fallback;
  if (auto* value = std::get_if<bool>(&at(name))) return *value;
  wrong_type(name, "a bool");
}

std::int64_t Attributes::integer(const char* name, std::int64_t fallback) const {
  if (!has(name)) return fallback;
  if (auto* value = std::get_if<std::int64_t>(&at(name))) return *value;
  wrong_type(name, "an integer");
}

double Attributes::number(const char* name) const {
  const Attribute& attribute = at(name);
  if (auto* value = std::get_if<double>(&attribute)) return *value;
  if (auto* value = std::get_if<std::int64_t>(&attribute)) return static_cast<double>(*value);
  wrong_type(name, "a number");
}

double Attributes::number(const char* name, double fallback) const {
  return has(name) ? number(name) : fallback;
}

std::string Attributes::text(const char* name) const {
  if (auto* value = std::get_if<std::string>(&at(name))) return *value;
  wrong_type(name, "a string");
}

std::string Attributes::text(const char* name, const std::string& fallback) const {
  return has(name) ? text(name) : fallback;
}

std::vector<std::int64_t> Attributes::integers(const char* name) const {
  if (auto* value = std::get_if<std::vector<std::int64_t>>(&at(name))) return *value;
  wrong_type(name, "a list of integers");
}

std::vector<std::int64_t> Attributes::integers(const char* name, std::size_t count) const {
  std::vector<std::int64_t> values = integers(name);
  if (values.size() != count)
    value_error(owner_, ": attribute '", name, "': expected ", count, " integers, got ",
                values.size());
  return values;
}

std::vector<std::int64_t> Attributes::integers(const char* name,
                                               std::vector<std::int64_t> fallback) const {
  return has(name) ? integers(name, fallback.size()) : std::move(fallback);
}

}  // namespace convlet
