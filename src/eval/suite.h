// Suites of generated tasks as they are typed: "ruler:tasks=niah_single_1|vt,len=4096,n=100".
//
//   ruler     tasks=NAME|NAME...|offline  len=L|L...  n=  questions=  chains=  hops=  prose=FILE
//   facts     len=  n=  facts=  questions=  prose=FILE
//   rkv_json  len=  n=  questions=
//   passkey, number   len=  n=
//   trace     task=NAME|NAME...  n=  samples=  steps=  registers=  max_new=
//   file:PATH         samples of a file, our own or RULER's; the rest of the text is the path
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"

namespace kvasir {

struct SuiteSpec {
  // One task at one length.
  struct Run {
    const Task* task = nullptr;
    uint64_t length = 0;  // 0 for traces
  };
  std::string name;
  std::string path;       // of "file"; then `runs` is empty
  std::vector<Run> runs;  // all lengths of a task before the next task
  uint64_t n = 0;         // problems per run
  uint64_t samples = 1;   // answers sampled per problem
  TaskParams params;
};

// Whether `name` is one of the suites above.
bool IsTaskSuite(std::string_view name);
std::vector<std::string_view> TaskSuites();

// Reads the text of `prose=`. `where` opens messages ("--suite"). Errors: kUsage naming the nearest
// suite, key or task; those of reading a file.
SuiteSpec ParseSuite(std::string_view spec, std::string_view where);

}  // namespace kvasir
