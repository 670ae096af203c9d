// Who may ask: keys, Host and Origin.
//
// Keys are held and compared as SHA-256 digests; every comparison goes through all of them, so that
// the time it takes tells nothing about any. Nothing here keeps or prints a key.
//
// Errors   kUsage for options that cannot be meant; HttpRefusal for requests.
// Threads  Immutable after construction.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/http.h"
#include "server/http_head.h"

namespace kvasir {

class HttpKeys {
 public:
  // `what` names the option in an error. An empty key would let everybody in.
  HttpKeys(const std::vector<std::string>& keys, std::string_view what);
  bool empty() const { return digests_.empty(); }
  // How many of the keys this is equal to. A count and no bool: it takes all of them to know it.
  size_t Matches(std::string_view key) const;
  // Whether `Authorization: Bearer KEY` or `x-api-key: KEY` of the request is one of them.
  bool Admit(const HttpHead& head) const;

 private:
  using Digest = std::array<uint8_t, 32>;
  static Digest DigestOf(std::string_view key);
  std::vector<Digest> digests_;
};

class HttpOrigins {
 public:
  HttpOrigins(const std::string& bound_host, const std::vector<std::string>& cors_origins);

  // 403 unless Host is the bound name, loopback, an allowed origin's, or, for a server bound to all
  // addresses, any address: a page of another site reaches a local server only through a name.
  void CheckHost(const HttpHead& head) const;
  // The allowed origin the request comes from, as configured; null for none or for a page of this
  // very server. 403 for all others: a browser sends their requests even where it hides the answer.
  const std::string* Check(const HttpHead& head) const;

 private:
  bool bound_to_all_;
  std::vector<std::string> hosts_;    // lower case, without port and brackets
  std::vector<std::string> origins_;  // scheme://host[:port], lower case
};

}  // namespace kvasir
