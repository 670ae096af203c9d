#include "server/http.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "base/temp_folder.h"
#include "server/http_access.h"
#include "server/http_test_client.h"

namespace kvasir {
namespace {

using test::Eventually;
using test::Get;
using test::HttpAnswerText;
using test::HttpTestClient;
using test::HttpTestServer;
using test::Post;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

TEST(HttpServer, AnswersAndKeepsTheConnection) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  for (const std::string body : {"a", "", "bc"}) {
    const HttpAnswerText answer = client.Ask(Post("/v1/echo", body));
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, body);
    EXPECT_EQ(answer.Header("connection"), "");
  }
  EXPECT_EQ(client.Ask(Get("/open", "Connection: close\r\n")).Header("connection"), "close");
  EXPECT_TRUE(client.ClosedByServer());
}

TEST(HttpServer, AnswersPipelinedRequestsInTurn) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  client.Send("\r\n" + Post("/v1/echo", "first") + Get("/open?query=1") + Post("/v1/echo", "last"));
  EXPECT_EQ(client.Read().body, "first");
  EXPECT_EQ(client.Read().body, "open");
  EXPECT_EQ(client.Read().body, "last");
}

TEST(HttpServer, ReadsBodiesInChunksAndDropsTrailers) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  const std::string head =
      "POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n";
  client.Send(head + "3\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n");
  EXPECT_EQ(client.Read().body, "abc0123456789");
  EXPECT_EQ(client.Ask(Get("/open")).body, "open");
}

TEST(HttpServer, SpeaksTheOldVersionWithoutChunks) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  const HttpAnswerText kept =
      client.Ask("GET /open HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(kept.body, "open");
  const HttpAnswerText stream = client.Ask("GET /stream HTTP/1.0\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(stream.Header("transfer-encoding"), "");
  EXPECT_EQ(stream.body, "onetwo");
}

TEST(HttpServer, SendsAStreamInChunksAsItIsWritten) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  const HttpAnswerText answer = client.Ask(Get("/stream"));
  EXPECT_TRUE(answer.whole);
  EXPECT_EQ(answer.body, "onetwo");
  EXPECT_EQ(answer.Header("transfer-encoding"), "chunked");
  EXPECT_EQ(answer.Header("cache-control"), "no-store");
  EXPECT_EQ(answer.Header("x-accel-buffering"), "no");
  EXPECT_EQ(answer.Header("content-type"), "text/event-stream");
  // What is written arrives while the stream goes on.
  client.Send(Get("/quiet"));
  EXPECT_TRUE(client.ReadUntil("hello"));
  EXPECT_EQ(server.ended, 0);
}

TEST(HttpServer, AnswersHeadWithoutABody) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  const HttpAnswerText answer = client.Ask("HEAD /open HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.Header("content-length"), "4");
  // A stream is not even started.
  EXPECT_EQ(client.Ask("HEAD /endless HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
  EXPECT_EQ(server.started, 0);
  EXPECT_EQ(client.Ask(Get("/open")).body, "open");
}

TEST(HttpServer, ExpectsNothingBeforeItHasSaidContinue) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  const std::string head =
      "POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: ";
  client.Send(head + "2\r\n\r\n");
  EXPECT_EQ(client.Read().status, 100);
  client.Send("ok");
  EXPECT_EQ(client.Read().body, "ok");
  EXPECT_EQ(client.Ask(head + "1001\r\n\r\n").status, 413);
  EXPECT_EQ(server.Ask(Get("/open", "Expect: miracles\r\n")).status, 417);
}

TEST(HttpServer, SaysWhichMethodsAPathTakes) {
  HttpTestServer server;
  const HttpAnswerText wrong = server.Ask(Get("/v1/echo"));
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.Header("allow"), "POST");
  EXPECT_EQ(server.Ask(Post("/v1/models", "x")).Header("allow"), "GET, HEAD");
  EXPECT_EQ(server.Ask("BREW /open HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 405);
  const HttpAnswerText unknown = server.Ask(Get("/nowhere"));
  EXPECT_EQ(unknown.status, 404);
  EXPECT_THAT(unknown.body, HasSubstr("\"type\":\"not_found_error\""));
}

TEST(HttpServer, TurnsExceptionsIntoAnswersAndGoesOn) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  const HttpAnswerText busy = client.Ask(Get("/busy"));
  EXPECT_EQ(busy.status, 429);
  EXPECT_NE(busy.Header("retry-after"), "");
  EXPECT_THAT(busy.body, HasSubstr("needs 3 GiB"));
  EXPECT_EQ(client.Ask(Get("/invalid")).status, 400);
  for (const char* path : {"/throw", "/throw-int", "/bad-header"}) {
    const HttpAnswerText answer = client.Ask(Get(path));
    EXPECT_EQ(answer.status, 500) << path;
    EXPECT_THAT(answer.body, HasSubstr("internal_error"));
    EXPECT_THAT(answer.body, Not(HasSubstr("private")));
    EXPECT_EQ(answer.Header("set-cookie"), "");
  }
  const HttpAnswerText no_memory = client.Ask(Get("/no-memory"));
  EXPECT_EQ(no_memory.status, 503);
  EXPECT_NE(no_memory.Header("retry-after"), "");
  EXPECT_EQ(client.Ask(Get("/open")).status, 200);
}

TEST(HttpServer, CutsOffAStreamThatFails) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  const HttpAnswerText answer = client.Ask(Get("/stream-throws"));
  EXPECT_EQ(answer.body, "one");
  EXPECT_FALSE(answer.whole);
  EXPECT_TRUE(server.Answers());
}

TEST(HttpServer, LogsWhatBecameOfEachRequest) {
  HttpTestServer server;
  server.Ask(Get("/open"));
  server.Ask(Get("/nowhere"));
  server.Ask("BREW /open HTTP/1.1\r\nHost: localhost\r\n\r\n");
  server.Stop();
  // Each connection logs for itself, after its answer.
  EXPECT_THAT(server.log(), UnorderedElementsAre("GET /open 127.0.0.1 200", "GET  127.0.0.1 404",
                                                 "OTHER /open 127.0.0.1 405"));
}

TEST(HttpServer, StopsIdleConnectionsAtOnceAndLetsWorkEnd) {
  HttpTestServer server;
  HttpTestClient fresh = server.Connect(), kept = server.Connect(), half = server.Connect();
  HttpTestClient uploading = server.Connect(), working = server.Connect();
  EXPECT_EQ(kept.Ask(Get("/open")).status, 200);
  half.Send("GET /op");
  uploading.Send("POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc");
  working.Send(Get("/hold"));
  ASSERT_TRUE(Eventually([&] { return server.started == 1; }));
  std::thread stopping([&] { server.Stop(); });
  EXPECT_TRUE(fresh.ClosedByServer());
  EXPECT_TRUE(kept.ClosedByServer());
  EXPECT_TRUE(half.ClosedByServer());
  // It may be stopped before it has read the head.
  const int status = uploading.Read().status;
  EXPECT_TRUE(status == 503 || status == 0) << status;
  EXPECT_FALSE(server.Connect().connected() && server.Answers());
  server.release = true;
  const HttpAnswerText held = working.Read();
  EXPECT_EQ(held.body, "held");
  EXPECT_EQ(held.Header("connection"), "close");
  stopping.join();
  server.Stop();
}

TEST(HttpServer, SaysWhereItCannotListen) {
  HttpTestServer first;
  HttpOptions options = HttpTestServer::Patient();
  options.port = first.port();
  HttpServer second(options, {}, {});
  try {
    second.Start();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kIo);
    EXPECT_THAT(error.what(), HasSubstr(fmt::format("127.0.0.1:{}", first.port())));
  }
}

TEST(HttpServer, ListensOnTheNewerProtocol) {
  for (const char* host : {"::1", "[::1]"}) {
    HttpOptions options = HttpTestServer::Patient();
    options.host = host;
    std::optional<HttpTestServer> server;
    try {
      server.emplace(options);
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
    const int fd = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(server->port());
    address.sin6_addr = in6addr_loopback;
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const std::string request =
        "GET /remote HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n";
    ASSERT_EQ(::send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
    std::string got;
    char bytes[1024];
    for (ssize_t n; (n = ::recv(fd, bytes, sizeof(bytes), 0)) > 0;) got.append(bytes, n);
    ::close(fd);
    EXPECT_THAT(got, HasSubstr("\r\n\r\n::1"));
  }
}

TEST(HttpServer, ListensOnASocketInTheFileSystem) {
  const test::TempFolder folder;
  const std::string path = folder.path() + "/kvasir.sock";
  HttpOptions options = HttpTestServer::Patient();
  options.host = "unix:" + path;
  {
    HttpTestServer server(options);
    struct stat info{};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600U);
    EXPECT_EQ(HttpTestClient(path).Ask(Get("/remote")).body, "unix");
    EXPECT_THROW(HttpTestServer second(options), Error);
    EXPECT_EQ(HttpTestClient(path).Ask(Get("/open")).body, "open");
  }
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
  // One left behind by a killed server is replaced.
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ::close(fd);
  HttpTestServer again(options);
  EXPECT_EQ(HttpTestClient(path).Ask(Get("/open")).body, "open");
}

HttpOptions WithKeys() {
  HttpOptions options = HttpTestServer::Patient();
  options.api_keys = {"alpha-key", "beta%20key"};
  options.admin_keys = {"admin-key"};
  return options;
}

TEST(HttpAccess, TakesAKeyFromEitherHeader) {
  HttpTestServer server(WithKeys());
  for (const char* header : {"Authorization: Bearer alpha-key", "authorization: bearer beta%20key",
                             "x-api-key: alpha-key", "X-API-Key: beta%20key"}) {
    EXPECT_EQ(server.Ask(Get("/v1/models", fmt::format("{}\r\n", header))).status, 200) << header;
  }
  for (const char* header :
       {"X-Nothing: 1", "Authorization: Bearer Xlpha-key", "Authorization: Bearer alpha-keX",
        "Authorization: Bearer alpha-ke", "Authorization: Bearer", "Authorization: Basic alpha-key",
        "Authorization: alpha-key", "x-api-key:", "x-api-key: alpha-key\r\nx-api-key: alpha-key",
        "x-api-key: beta key", "x-api-key: admin-key", "Cookie: x-api-key=alpha-key"}) {
    const HttpAnswerText answer = server.Ask(Get("/v1/models", fmt::format("{}\r\n", header)));
    EXPECT_EQ(answer.status, 401) << header;
    EXPECT_EQ(answer.Header("www-authenticate"), "Bearer");
    EXPECT_THAT(answer.body, HasSubstr("\"type\":\"authentication_error\""));
  }
  EXPECT_EQ(server.Ask(Get("/open")).status, 200);
}

TEST(HttpAccess, ComparesWithAllKeysWhicheverIsRight) {
  // A count proves that the comparison went on after the first match.
  const HttpKeys keys({"same", "other", "same"}, "key");
  EXPECT_EQ(keys.Matches("same"), 2U);
  EXPECT_EQ(keys.Matches("other"), 1U);
  EXPECT_EQ(keys.Matches("samf"), 0U);
  EXPECT_EQ(keys.Matches("tame"), 0U);
  EXPECT_EQ(keys.Matches(""), 0U);
  EXPECT_THROW(HttpKeys({"a", ""}, "key"), Error);
}

TEST(HttpAccess, ShowsNoKeyInAnswersOrLogLines) {
  HttpTestServer server(WithKeys());
  std::string seen;
  for (const char* key : {"alpha-key", "wrong-key", "admin-key"}) {
    for (const char* path : {"/v1/models", "/nowhere", "/admin", "/throw"}) {
      const HttpAnswerText answer =
          server.Ask(Get(path, fmt::format("Authorization: Bearer {}\r\n", key)));
      seen += answer.head + answer.body;
    }
  }
  server.Stop();
  for (const std::string& line : server.log()) seen += line;
  for (const char* key : {"alpha", "beta", "wrong", "admin-"}) {
    EXPECT_THAT(seen, Not(HasSubstr(key)));
  }
}

TEST(HttpAccess, HidesAdminRoutesWithoutTheirKey) {
  const std::string body_of_404 = HttpTestServer().Ask(Post("/nowhere", "")).body;
  HttpTestServer without;
  EXPECT_EQ(without.Ask(Post("/admin", "", "x-api-key: admin-key\r\n")).body, body_of_404);
  HttpTestServer server(WithKeys());
  for (const char* header : {"", "x-api-key: alpha-key\r\n", "x-api-key: admin-kez\r\n"}) {
    for (const std::string method : {"POST", "GET", "HEAD", "OPTIONS"}) {
      const HttpAnswerText answer = server.Ask(
          fmt::format("{} /admin HTTP/1.1\r\nHost: localhost\r\n{}\r\n", method, header));
      EXPECT_EQ(answer.status, 404) << method << header;
      EXPECT_EQ(answer.body, method == "HEAD" ? "" : body_of_404);
    }
  }
  EXPECT_EQ(server.Ask(Post("/admin", "", "x-api-key: admin-key\r\n")).body, "admin");
}

TEST(HttpAccess, KnowsItsOwnNamesOnly) {
  HttpOptions options = HttpTestServer::Patient();
  options.cors_origins = {"https://Chat.Example.org:8443"};
  HttpTestServer server(options);
  const auto status = [&](std::string_view host) {
    return server.Ask(fmt::format("GET /open HTTP/1.1\r\nHost: {}\r\n\r\n", host)).status;
  };
  for (const char* host : {"localhost", "LOCALHOST:1", "localhost:", "127.0.0.1", "127.0.0.1:65535",
                           "[::1]", "[::1]:80", "chat.example.org", "chat.example.org:9"}) {
    EXPECT_EQ(status(host), 200) << host;
  }
  for (const char* host :
       {"evil.example", "localhost.evil.example", "evil.example:8080", "127.0.0.1.evil.example",
        "127.0.0.2", "192.168.0.1", "localhost:80:80", "localhost:x", "[::1", "[::2]", "::1",
        "localhost/", "user@localhost", "localhost, evil.example", "", "."}) {
    EXPECT_EQ(status(host), 403) << host;
  }
}

TEST(HttpAccess, TakesAnyAddressButNoNameWhenBoundToAll) {
  HttpOptions options = HttpTestServer::Patient();
  options.host = "0.0.0.0";
  HttpTestServer server(options);
  const auto status = [&](std::string_view host) {
    return server.Ask(fmt::format("GET /open HTTP/1.1\r\nHost: {}\r\n\r\n", host)).status;
  };
  EXPECT_EQ(status("192.168.0.1:8080"), 200);
  EXPECT_EQ(status("[fe80::1]:8080"), 200);
  EXPECT_EQ(status("localhost"), 200);
  EXPECT_EQ(status("evil.example"), 403);
  EXPECT_EQ(status("0x7f.1"), 403);
}

TEST(HttpAccess, ClosesItselfToForeignOrigins) {
  HttpOptions options = WithKeys();
  options.cors_origins = {"https://chat.example.org"};
  HttpTestServer server(options);
  for (const char* origin : {"https://evil.example", "null", "http://chat.example.org",
                             "https://chat.example.org.evil.example", "https://chat.example.org:1",
                             "https://chat.example.org/x", "*", "", "http://localhost:81"}) {
    for (const std::string method : {"GET", "POST", "OPTIONS", "HEAD"}) {
      const HttpAnswerText answer =
          server.Ask(fmt::format("{} /open HTTP/1.1\r\nHost: localhost\r\nOrigin: {}\r\n"
                                 "Access-Control-Request-Method: GET\r\n\r\n",
                                 method, origin));
      EXPECT_EQ(answer.status, 403) << origin;
      EXPECT_EQ(answer.Header("access-control-allow-origin"), "") << origin;
    }
  }
  // A page of this server is no foreigner.
  EXPECT_EQ(server.Ask(Get("/open", "Origin: http://localhost\r\n")).status, 200);
  EXPECT_EQ(server.Ask(Get("/open")).Header("access-control-allow-origin"), "");
}

TEST(HttpAccess, LetsAllowedOriginsInWithTheirKey) {
  HttpOptions options = WithKeys();
  options.cors_origins = {"https://chat.example.org"};
  HttpTestServer server(options);
  const std::string origin = "Origin: https://chat.example.org\r\n";
  const auto preflight = [&](std::string_view path) {
    return server.Ask(
        fmt::format("OPTIONS {} HTTP/1.1\r\nHost: localhost\r\n{}"
                    "Access-Control-Request-Method: POST\r\n"
                    "Access-Control-Request-Headers: x-mine\r\n\r\n",
                    path, origin));
  };
  const HttpAnswerText answer = preflight("/v1/echo");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.Header("access-control-allow-origin"), "https://chat.example.org");
  EXPECT_EQ(answer.Header("access-control-allow-methods"), "POST");
  EXPECT_EQ(answer.Header("vary"), "Origin");
  EXPECT_THAT(answer.Header("access-control-allow-headers"), HasSubstr("Authorization"));
  EXPECT_THAT(answer.head, Not(HasSubstr("x-mine")));
  EXPECT_EQ(preflight("/admin").status, 404);
  EXPECT_EQ(preflight("/nowhere").status, 404);

  const HttpAnswerText refused = server.Ask(Get("/v1/models", origin));
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.Header("access-control-allow-origin"), "https://chat.example.org");
  EXPECT_EQ(server.Ask(Get("/v1/models", origin + "x-api-key: alpha-key\r\n")).status, 200);
  EXPECT_EQ(server.Ask("OPTIONS /open HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 405);
}

TEST(HttpAccess, WantsOriginsInFull) {
  for (const char* origin :
       {"*", "null", "chat.example.org", "https://", "https://a/", "ftp://a"}) {
    HttpOptions options;
    options.cors_origins = {origin};
    EXPECT_THROW(HttpServer(options, {}, {}), Error) << origin;
  }
}

}  // namespace
}  // namespace kvasir
