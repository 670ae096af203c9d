// One request, run to its end: what `run`, its questions and its chat share.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/output.h"
#include "cli/setup.h"
#include "engine/engine.h"

namespace kvasir {

// Sampling, length and stops as the flags have them.
Request RequestFrom(const OptionValues& values, const std::vector<std::string>& stops);

// Pins the caller's system text if the engine's policy does that.
void Pin(const Engine& engine, const Prompt& prompt, Request* request);

// Submits and steps until it is done. Text goes to `stream` as it comes, if not null; a progress
// bar shows while the prompt is read. While `Interrupted()` the request is cancelled. Errors:
// Submit's, and the request's own.
Generation Complete(Engine& engine, Request request, Output* stream);

// Why a generation ended, when that was not what the request asked for; else empty.
std::string LengthNote(const Generation& generation);

nlohmann::ordered_json KvOf(const Session& session, const Engine& engine,
                            const Generation& generation);

// Ctrl-C ends the generation and not the program while one of these is alive.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
};
bool Interrupted();  // and forgets it

}  // namespace kvasir
