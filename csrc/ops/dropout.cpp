#include "ops/dropout.h"

namespace convlet {

DropoutShape check_dropout(const char* op, const Shape& x, double rate, const std::string& noise) {
  if (!(rate >= 0 && rate < 1)) value_error(op, ": expected rate in [0,1), got ", rate);
  const std::int64_t elements = x.elements(op);
  if (noise == "element") return {1, 1, elements};
  const int least = noise == "channel" ? 2 : 1;
  if (noise != "channel" && noise != "sample")
    value_error(op, ": expected noise \"element\", \"channel\" or \"sample\", got \"", noise, "\"");
  if (x.rank() < least)
    value_error(op, ": expected x of at least ", least, " axes for noise \"", noise,
                "\", got x of shape ", x);
  const std::int64_t C = noise == "channel" ? x.back() : 1;
  if (elements == 0) return {0, 1, 1};
  return {x[0], elements / x[0] / C, C};
}

}  // namespace convlet
