// Which file a model's name means.
//
// A name with a slash, and a name of something that exists, is a path. Any other is looked for in
// the models folder: as a file's name, as that without its suffix, as a short name from the table.
// A model in several files has the name of its first one, or what is in front of "-00001-of-".
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace kvasir {

// A short name and how the lower-case stem of the file begins that it means.
struct ShortName {
  std::string_view name, stem;
};
std::span<const ShortName> ShortNames();

// ${KVASIR_MODELS:-~/.cache/kvasir/models}
std::string ModelsDir();
// Errors: kNotFound listing what is there; kInvalid listing the files a short name fits, if more
// than one.
std::string ResolveModel(const std::string& name, const std::string& models_dir);

}  // namespace kvasir
