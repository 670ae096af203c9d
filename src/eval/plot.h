// An SVG of quality against bytes: for every suite and mode a panel per measure, one curve for each
// method over its budgets, the dense model as a line.
//
// Threads  Pure functions.
#pragma once

#include <string>
#include <vector>

#include "eval/report.h"

namespace kvasir {

// Round numbers that divide [lo, hi], about `most` of them and at least two.
std::vector<double> AxisTicks(double lo, double hi, size_t most);

std::string PlotSvg(const EvalReport& report);

}  // namespace kvasir
