// Help texts, made from the tables of flags, policies and verbs.
#pragma once

#include <string>
#include <string_view>

#include "cli/options.h"

namespace kvasir {

std::string GeneralHelp();
std::string VerbHelp(const CliVerb& verb);
// A verb, "policies", the name of a policy, or "mustafar". Errors: kUsage with the nearest topic.
std::string TopicHelp(std::string_view topic);
std::string VersionText();

}  // namespace kvasir
