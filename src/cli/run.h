// The forms of `run`: one prompt, many questions about a document, a chat.
#pragma once

#include "cli/output.h"
#include "cli/setup.h"

namespace kvasir {

// Questions from --ask about the document in -f or -p; the document is read once.
void AskQuestions(const Arguments& args, Session& session, Output& output);
// Chat on standard input, until it ends or /bye.
void Chat(const Arguments& args, Session& session);

// Whether a prompt of this origin is put into the chat template: --raw and --chat decide, else
// `otherwise`.
bool UsesTemplate(const Arguments& args, bool otherwise);

}  // namespace kvasir
