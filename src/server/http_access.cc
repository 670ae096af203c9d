#include "server/http_access.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <optional>

namespace kvasir {

namespace {

constexpr std::string_view kBearer = "bearer ";

bool IsAddress(const std::string& host) {
  in6_addr address;
  return inet_pton(AF_INET, host.c_str(), &address) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

// "name:8080" and "[::1]:8080" without the port and the brackets, in lower case; nothing if it is
// neither.
std::optional<std::string> HostOf(std::string_view authority) {
  std::string_view host, port;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
    if (!IsAddress(std::string(host))) return std::nullopt;
  } else {
    const size_t colon = std::min(authority.find(':'), authority.size());
    host = authority.substr(0, colon);
    port = authority.substr(colon);
  }
  const bool good_port =
      port.empty() || (port.size() <= 6 && port.starts_with(':') &&
                       port.find_first_not_of("0123456789", 1) == std::string_view::npos);
  const bool good_host =
      !host.empty() && host.find_first_of("/@?# \t,\"\\") == std::string_view::npos;
  if (!good_port || !good_host) return std::nullopt;
  return LowerAscii(host);
}

std::string_view WithoutScheme(std::string_view origin) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (origin.starts_with(scheme)) return origin.substr(scheme.size());
  }
  return {};
}

}  // namespace

HttpKeys::HttpKeys(const std::vector<std::string>& keys, std::string_view what) {
  for (const std::string& key : keys) {
    if (key.empty()) Fail(Code::kUsage, "{}: a key is empty", what);
    digests_.push_back(DigestOf(key));
  }
}

HttpKeys::Digest HttpKeys::DigestOf(std::string_view key) {
  Digest digest;
  CHECK(EVP_Digest(key.data(), key.size(), digest.data(), nullptr, EVP_sha256(), nullptr) == 1);
  return digest;
}

size_t HttpKeys::Matches(std::string_view key) const {
  const Digest digest = DigestOf(key);
  size_t matches = 0;
  for (const Digest& known : digests_) {
    matches += CRYPTO_memcmp(known.data(), digest.data(), digest.size()) == 0 ? 1 : 0;
  }
  return matches;
}

bool HttpKeys::Admit(const HttpHead& head) const {
  size_t matches = 0;
  if (const auto value = head.Find("authorization")) {
    if (LowerAscii(value->substr(0, kBearer.size())) == kBearer) {
      matches += Matches(value->substr(kBearer.size()));
    }
  }
  if (const auto value = head.Find("x-api-key")) matches += Matches(*value);
  return matches > 0;
}

HttpOrigins::HttpOrigins(const std::string& bound_host,
                         const std::vector<std::string>& cors_origins)
    : hosts_{"localhost", "127.0.0.1", "::1"} {
  const std::string bound = HostOf(bound_host).value_or(LowerAscii(bound_host));
  bound_to_all_ = bound.empty() || bound == "0.0.0.0" || bound == "::";
  if (!bound_to_all_) hosts_.push_back(bound);
  for (const std::string& origin : cors_origins) {
    const std::string lower = LowerAscii(origin);
    const std::optional<std::string> host = HostOf(WithoutScheme(lower));
    if (!host) {
      Fail(Code::kUsage, "cors origin \"{}\": not of the form https://name[:port]", origin);
    }
    origins_.push_back(lower);
    hosts_.push_back(*host);
  }
}

void HttpOrigins::CheckHost(const HttpHead& head) const {
  const std::optional<std::string> host = HostOf(head.Find("host").value_or(""));
  if (host && std::find(hosts_.begin(), hosts_.end(), *host) != hosts_.end()) return;
  if (host && bound_to_all_ && IsAddress(*host)) return;
  throw HttpRefusal(403, "permission_error",
                    "Host is not this server's name, a loopback name or an allowed origin's");
}

const std::string* HttpOrigins::Check(const HttpHead& head) const {
  if (head.Count("origin") == 0) return nullptr;
  const std::string origin = LowerAscii(head.Find("origin").value_or(""));
  for (const std::string& allowed : origins_) {
    if (origin == allowed) return &allowed;
  }
  const std::string_view authority = WithoutScheme(origin);
  if (!authority.empty() && authority == LowerAscii(head.Find("host").value_or(""))) return nullptr;
  throw HttpRefusal(403, "permission_error", "Origin is not among the allowed origins");
}

}  // namespace kvasir
