// The verbs, each in a file of its own. Each returns when its result is out, or throws an Error.
#pragma once

#include "cli/options.h"

namespace kvasir {

void RunVerb(const Arguments& args);
void BatchVerb(const Arguments& args);
void ServeVerb(const Arguments& args);
void EvalPplVerb(const Arguments& args);
int EvalVerb(const Arguments& args);  // the exit code
void EvalKeepVerb(const Arguments& args);
void TokenizeVerb(const Arguments& args);
void TemplateVerb(const Arguments& args);
void InspectVerb(const Arguments& args);
void QuantizeVerb(const Arguments& args);
void DoctorVerb(const Arguments& args);
void BenchVerb(const Arguments& args);
void BenchServeVerb(const Arguments& args);

}  // namespace kvasir
